"""Sliced attention against torch's own, in float32 and as bf16 sees it."""

from __future__ import annotations

import pytest
import torch

from subllm.extraction.attention import sliced_attention


@pytest.mark.parametrize("length", [1, 7, 128, 129, 300])
@pytest.mark.parametrize("heads", [(4, 4), (6, 2), (14, 2)])
@pytest.mark.parametrize("window", [None, 5])
def test_equals_the_fused_kernel(length: int, heads: tuple[int, int], window: int | None) -> None:
    torch.manual_seed(length)
    query, key, value = (torch.randn(2, h, length, 16) for h in (heads[0], heads[1], heads[1]))
    allowed = torch.ones(length, length, dtype=torch.bool).tril()
    if window is not None:
        allowed &= torch.ones(length, length, dtype=torch.bool).triu(1 - window)
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=allowed, scale=0.3, enable_gqa=True
    ).transpose(1, 2)
    added = torch.zeros(1, 1, length, length).masked_fill(~allowed, float("-inf"))
    mask = None if window is None else added
    got, _ = sliced_attention(torch.nn.Identity(), query, key, value, mask, scaling=0.3)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    kinds = [x.bfloat16() for x in (query, key, value)]
    rough, _ = sliced_attention(torch.nn.Identity(), *kinds, mask, scaling=0.3)
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.float(), expected, rtol=0.05, atol=0.03)


def test_soft_cap_bounds_scores_before_the_mask() -> None:
    query = torch.full((1, 1, 2, 1), 100.0)
    key = torch.tensor([[[[1.0], [-1.0]]]])
    value = torch.tensor([[[[1.0], [0.0]]]])
    got, _ = sliced_attention(
        torch.nn.Identity(), query, key, value, None, scaling=1.0, softcap=1.0
    )
    # Scores 1 and -1 after the cap: e / (e + 1/e).
    assert got.flatten().tolist() == pytest.approx([1.0, 0.880797], abs=1e-5)
