"""From logits to choices on the device: tokens alone come back, all of a step together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from subllm.engine.backend import Choice, Draw
from subllm.engine.backends.cuda.steps import Found
from subllm.engine.backends.torch.drawing import choose
from subllm.engine.sampler import needs_adjustment
from subllm.errors import LogitsError
from subllm.kernels.products.triton.operands import Bias, Penalties
from subllm.kernels.products.triton_ops import adjust, sample

_ROWS = 16  # drawn at once: each takes some float64 numbers for every token


def chosen(found: Found, drawn: Sequence[tuple[int, Draw]]) -> list[Choice | LogitsError]:
    """A choice for each of `drawn`, (row of `found`, draw). The only wait for the device is for
    tokens, but where log-probabilities are asked for."""
    if not drawn:
        return []
    choices: dict[int, Choice | LogitsError] = {}
    told = [i for i, (_, draw) in enumerate(drawn) if _tells(draw)]
    if told:
        rows = found.logits[[drawn[i][0] for i in told]]
        choices |= zip(told, choose(rows, [drawn[i][1] for i in told]), strict=True)
    quiet = [i for i in range(len(drawn)) if i not in choices]
    alike = [i for i in quiet if _is_greedy(drawn[i][1])]
    others = [i for i in quiet if not _is_greedy(drawn[i][1])]
    tokens = [found.choices[[drawn[i][0] for i in alike]]] if alike else []
    for first in range(0, len(others), _ROWS):
        part = others[first : first + _ROWS]
        logits = found.logits[[drawn[i][0] for i in part]]  # a copy
        tokens.append(_sampled(logits, [drawn[i][1] for i in part]))
    if tokens:
        back = torch.cat(tokens).tolist()
        choices |= zip([*alike, *others], map(_choice, back), strict=True)
    return [choices[i] for i in range(len(drawn))]


def _tells(draw: Draw) -> bool:
    return draw.params.logprobs is not None or draw.estimate


def _is_greedy(draw: Draw) -> bool:
    changed = needs_adjustment(draw.params) or draw.allowed is not None
    return draw.params.temperature == 0.0 and not changed


def _choice(token: int) -> Choice | LogitsError:
    return LogitsError() if token < 0 else Choice(token)


def _sampled(logits: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
    """int32 [rows] of logits float32 [rows, vocab], which are changed."""

    def sent(array: npt.NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(array).to(logits.device, non_blocking=True)

    def each(value: Callable[[Draw], float]) -> torch.Tensor:
        return sent(np.array([value(draw) for draw in draws], np.float64))

    params = [draw.params for draw in draws]
    if any(p.logit_bias for p in params):
        sums = [_summed(p.logit_bias) for p in params]
        most = max(map(len, sums))
        ids = np.array([[*s, *[-1] * (most - len(s))] for s in sums], np.int64)
        bias = [[*s.values(), *[0.0] * (most - len(s))] for s in sums]
        adjust(logits, bias=Bias(sent(ids), sent(np.array(bias, np.float32))))
    if any(
        p.repetition_penalty != 1.0 or p.presence_penalty or p.frequency_penalty for p in params
    ):
        penalties = Penalties(
            history=sent(_filled([draw.history for draw in draws], 0)),
            lengths=sent(np.array([len(draw.history) for draw in draws], np.int64)),
            prompt_lengths=sent(np.array([draw.prompt_length for draw in draws], np.int64)),
            repetition=each(lambda draw: draw.params.repetition_penalty).float(),
            presence=each(lambda draw: draw.params.presence_penalty).float(),
            frequency=each(lambda draw: draw.params.frequency_penalty).float(),
        )
        adjust(logits, penalties=penalties)
    if any(draw.allowed is not None for draw in draws):
        words = -(-logits.shape[1] // 32)
        every = np.full(words, 0xFFFFFFFF, np.uint32)
        allowed = [every if draw.allowed is None else draw.allowed[:words] for draw in draws]
        adjust(logits, allowed=sent(_filled(allowed, 0).view(np.int32)))
    return sample(
        logits,
        each(lambda draw: draw.params.temperature),
        sent(np.array([p.top_k for p in params], np.int64)),
        each(lambda draw: draw.params.top_p),
        each(lambda draw: draw.params.min_p),
        each(lambda draw: draw.uniform),
    )


def _summed(biases: Sequence[tuple[int, float]]) -> dict[int, float]:
    sums: dict[int, float] = {}
    for token, bias in biases:
        sums[token] = sums.get(token, 0.0) + bias
    return sums


def _filled(rows: Sequence[npt.NDArray[np.generic]], value: int) -> npt.NDArray[np.generic]:
    """One array of rows of different lengths."""
    found = np.full((len(rows), max(map(len, rows))), value, rows[0].dtype)
    for line, row in zip(found, rows, strict=True):
        line[: len(row)] = row
    return found
