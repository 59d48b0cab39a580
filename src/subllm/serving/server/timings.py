"""Timings in the words of llama.cpp, which several dialects carry."""

from __future__ import annotations

from typing import Any

from subllm.serving.server.reply import Timings, Usage


def llamacpp_timings(usage: Usage, timings: Timings) -> dict[str, Any]:
    """Counts of tokens (`cache_n` were not computed again), milliseconds and rates. The
    prompt's time runs from the arrival of the request: waiting and loading are in it."""
    computed = usage.prompt - usage.cached
    return {
        "cache_n": usage.cached,
        **_rates("prompt", computed, timings.prompt),
        **_rates("predicted", usage.completion, timings.completion),
        "draft_n": usage.accepted + usage.rejected,
        "draft_n_accepted": usage.accepted,
    }


def _rates(name: str, tokens: int, seconds: float) -> dict[str, Any]:
    return {
        f"{name}_n": tokens,
        f"{name}_ms": round(1000 * seconds, 3),
        f"{name}_per_token_ms": round(1000 * seconds / tokens, 3) if tokens else 0.0,
        f"{name}_per_second": round(tokens / seconds, 3) if seconds else 0.0,
    }
