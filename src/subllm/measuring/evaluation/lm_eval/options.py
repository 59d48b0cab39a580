"""A task's generation options, as the harness spells them, as sampling parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from subllm.engine.request import SamplingParams
from subllm.errors import BenchmarkError

DEFAULT_TOKENS = 256
"""As the harness's own models where a task sets no limit."""

_LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_PASSED_ON = ("top_k", "top_p", "min_p", "repetition_penalty")


def sampling(options: Mapping[str, Any], seed: int) -> SamplingParams:
    """The parameters of one answer. Without `do_sample`, a temperature above 0 samples.

    Raises BenchmarkError for an option that the engine has not: dropping it would measure
    something else than the task says.
    """
    rest = dict(options)
    until = rest.pop("until", None) or ()
    limits = [int(value) for name in _LIMITS if (value := rest.pop(name, None)) is not None]
    temperature = rest.pop("temperature", None)
    sample = rest.pop("do_sample", None)
    if sample is None:
        sample = bool(temperature)
    if sample and temperature is None:
        temperature = 1.0
    passed = {name: rest.pop(name) for name in _PASSED_ON if name in rest}
    if rest:
        raise BenchmarkError(
            f"the task's generation option {min(rest)!r} is unknown here; take it out of the "
            "task's generation_kwargs"
        )
    return SamplingParams(
        temperature=float(temperature) if sample else 0.0,
        seed=seed,
        max_tokens=limits[0] if limits else DEFAULT_TOKENS,
        stop=(until,) if isinstance(until, str) else tuple(until),
        **passed,
    )
