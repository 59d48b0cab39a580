"""How much an engine takes on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineLimits:
    """max_batch      requests that run at once; `queue_limit` more may wait
    kv_tokens      KV memory, in tokens, of all requests together; one context at least
    kv_bytes       the same in bytes, where it is known; see `LocalEngine.kv_budget`
    prefill_chunk  tokens of a prompt that are read in one step
    keep_prefixes  finished requests whose KV memory is kept for reuse, where it has room; all
                   are looked through for each request
    """

    max_batch: int = 8
    queue_limit: int = 64
    kv_tokens: int = 0
    kv_bytes: int | None = None
    prefill_chunk: int = 512
    keep_prefixes: int = 256
