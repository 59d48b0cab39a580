from __future__ import annotations

import json

import numpy as np
import pytest

from subllm.errors import UsageError
from subllm.measuring.report.masks.records import Comparison, Pair, read_comparison
from subllm.measuring.report.masks.windows import read_windows
from subllm.measuring.report.records import to_lines

from .samples import BASE, LABELS, counts, five, two, window


def test_distances_of_layers_and_types_are_pooled() -> None:
    comparison = two()
    assert comparison.overlap(layer=0, role="q").distance(0, 1) == 0.5
    assert comparison.overlap(layer=0, role="k").distance(0, 1) == 0
    # 200 + 100 of 400 + 300; 200 + 128 of 400 + 128; everything.
    assert comparison.overlap(role="q").distance(0, 1) == pytest.approx(1 - 300 / 700)
    assert comparison.overlap(layer=0).distance(0, 1) == pytest.approx(1 - 328 / 528)
    total = comparison.overlap()
    assert total.distance(0, 1) == pytest.approx(1 - 492 / 956)
    assert total.distance(0, 1) == total.distance(1, 0)
    assert (total.weights, total.by_all, total.by_any) == (1536, 492, 956)
    assert total.alone.tolist() == [232, 232]
    assert total.density(0) == 724 / 1536
    assert total.share(0, 1) == 492 / 724


def test_chance_is_what_independent_masks_would_give() -> None:
    comparison = two()
    # 256 weights of which 128 are kept by both: by chance 64 of 192 are common.
    assert comparison.overlap(layer=0, role="k").chance(0, 1) == pytest.approx(1 - 64 / 192)
    expected = 300 * 300 / 512 + 64 + 200 * 200 / 512 + 36
    assert comparison.overlap().chance(0, 1) == pytest.approx(1 - expected / (1448 - expected))


def test_empty_masks_are_the_same() -> None:
    empty = counts(0, "q", [[0, 0], [0, 0]], [0, 0], 0, 0)
    total = Comparison(two().header, [empty]).overlap()
    assert (total.distance(0, 1), total.share(0, 1)) == (0, 0)


def test_pairs_are_within_a_language_across_or_with_general() -> None:
    comparison = five()
    assert comparison.labels == LABELS
    kinds = {
        (LABELS[pair.a], LABELS[pair.b]): pair.kind for pair in comparison.pairs
    }  # fmt: skip
    assert kinds == {
        ("python", "python-small"): "within",
        ("python", "java"): "across",
        ("python", "general"): "general",
        ("python", "dense"): "dense",
        ("python-small", "java"): "across",
        ("python-small", "general"): "general",
        ("python-small", "dense"): "dense",
        ("java", "general"): "general",
        ("java", "dense"): "dense",
        ("general", "dense"): "dense",
    }
    assert comparison.generals == (3,)
    total = comparison.overlap()
    assert comparison.mean_distance("within", total) == 0
    assert comparison.mean_distance("across", total) == pytest.approx(2 / 3)
    assert comparison.mean_distance("general", total) == pytest.approx((0.4 + 0.4 + 2 / 3) / 3)
    assert two().mean_distance("within", two().overlap()) is None


@pytest.mark.parametrize("change", [{"pattern": "50%"}, {"method": "magnitude"}])
def test_means_leave_out_what_another_pattern_or_method_did(change: dict[str, str]) -> None:
    given = five()
    models = list(given.models)
    models[1] = models[1].model_copy(update=change)
    header = given.header.model_copy(update={"models": tuple(models)})
    comparison = Comparison(header, given.matrices)
    total = comparison.overlap()
    assert comparison.mean_distance("within", total) is None
    assert comparison.mean_distance("across", total) == pytest.approx(2 / 3)
    assert comparison.mean_distance("general", total) == pytest.approx((0.4 + 2 / 3) / 2)


def test_bytes_follow_each_models_values() -> None:
    total = five().overlap()
    assert (total.kept_bits // 8).tolist() == [256, 128, 256, 256, 512]
    assert (total.alone_bits // 8).tolist() == [0, 0, 0, 0, 80]
    assert (total.by_all_bits // 8).tolist() == [100, 50, 100, 100, 100]


def test_the_file_reads_back() -> None:
    text = two().to_lines()
    assert len(text.splitlines()) == 5
    again = read_comparison(text)
    assert (again.header, again.matrices) == (two().header, two().matrices)
    assert again.pairs == (Pair(0, 1, "across", alike=True),)


def corrupted(line: int, **changes: object) -> str:
    rows = [json.loads(row) for row in two().to_lines().splitlines()]
    rows[line] |= changes
    return "\n".join(map(json.dumps, rows))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "masks.jsonl is empty; run 'subllm compare --out DIR'"),
        ("{]", "masks.jsonl:1 is not JSON"),
        (corrupted(0, version=2), "masks.jsonl:1: version: input should be 1"),
        (corrupted(0, extra=2), "masks.jsonl:1: extra: extra inputs"),
        (corrupted(2, by_all="many"), "masks.jsonl:3: by_all: input should be a valid integer"),
        (corrupted(3, alone=[1, 2, 3]), "does not count 2 models"),
        (corrupted(3, both=[[1, 2], [1]]), "does not count 2 models"),
        (two().to_lines().splitlines()[0], "a comparison without matrices"),
        (two().to_lines() + "7\n", "masks.jsonl:6: input should be a valid dictionary"),
    ],
)
def test_malformed_files_are_told_by_line(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_comparison(text, where="masks.jsonl")


def test_windows_read_back() -> None:
    written = [window(seed=0), window(("a", "b", "c"), seed=1)]
    again = read_windows(to_lines(written))
    assert again == written
    for ours, theirs in zip(written, again, strict=True):
        assert np.array_equal(ours.kept_array(), theirs.kept_array())
    rng = np.random.default_rng(0)
    kept = rng.random((2, 6, 10)) < 0.5
    assert np.array_equal(again[0].kept_array(), kept)
    assert np.array_equal(again[0].weights_array() != 0, kept)
    assert again[0].differing_array().tolist()[2] == pytest.approx([0.4, 0.5], abs=1e-3)


@pytest.mark.parametrize("field", ["kept", "weights", "differing"])
@pytest.mark.parametrize("text", ["", "AAAA", "no base64!"])
def test_damaged_arrays_are_told(field: str, text: str) -> None:
    record = window().model_copy(update={field: text})
    with pytest.raises(UsageError, match=r"the record of model.layers.1.q.weight is damaged"):
        getattr(record, f"{field}_array")()


def test_malformed_windows_are_told_by_line() -> None:
    with pytest.raises(UsageError, match=r"overlay\.jsonl:2: layer: field required"):
        row = json.loads(to_lines([window()]))
        del row["layer"]
        read_windows(to_lines([window()]) + json.dumps(row), where="overlay.jsonl")


def test_names_of_another_base_stay_whole() -> None:
    comparison = two()
    header = comparison.header.model_copy(update={"base": "other:2m"})
    assert Comparison(header, comparison.matrices).labels == (f"{BASE}-python", f"{BASE}-java")
