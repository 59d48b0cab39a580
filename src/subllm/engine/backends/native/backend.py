"""The native backend: packed weights where they are mapped, all arithmetic in C++.

A step is one foreign call with the interpreter lock released. What Python hands over is
checked there, before anything changes; a refusal comes back as BackendError.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from subllm.engine.backend import KV_BLOCK, Choice, Choices, Chunk, Draw, TokenArray
from subllm.engine.backends.chunks import as_tokens
from subllm.engine.backends.native.weights import DecoderWeights
from subllm.engine.request import TokenLogprob
from subllm.engine.weights import ScreenedWeightSource
from subllm.errors import BackendError, LogitsError
from subllm.kernels import native
from subllm.machine import usable_cores

KvType = Literal["bfloat16", "int8", "float32"]


@contextmanager
def _refusals() -> Iterator[None]:
    """Turns what the core refuses into BackendError."""
    try:
        yield
    except MemoryError as error:
        raise BackendError(
            "there is no memory left for this step; lower the context length or the number "
            "of parallel requests"
        ) from error
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise BackendError(f"the native backend refused: {_line(error)}") from error


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def pack_draw(draw: Draw) -> tuple[Any, ...]:
    """A draw as the core takes it."""
    params = draw.params
    allowed = () if draw.allowed is None else (np.ascontiguousarray(draw.allowed, np.uint32),)
    return (
        float(params.temperature),
        int(params.top_k),
        float(params.top_p),
        float(params.min_p),
        float(params.repetition_penalty),
        float(params.presence_penalty),
        float(params.frequency_penalty),
        [(int(token), float(bias)) for token, bias in params.logit_bias],
        as_tokens(draw.history),
        int(draw.prompt_length),
        float(draw.uniform),
        (-2 if draw.estimate else -1) if params.logprobs is None else int(params.logprobs),
        *allowed,
    )


class NativeBackend:
    """Implements `engine.backend.Backend`."""

    def __init__(
        self,
        source: ScreenedWeightSource,
        *,
        threads: int | None = None,
        kv: KvType = "bfloat16",
        exact: bool = False,
        screen: bool = True,
    ) -> None:
        """Takes the weights where they are; they must stay mapped for as long as this lives.

        threads  None: all cores that this process may use
        kv       how keys and values are kept; int8 has a scale per token and head
        exact    float32 activations in every product and the whole head: slow, a reference for
                 the others
        screen   draws rank tokens by the head's screening plane, where there is one, and read
                 the head itself for the best few hundred

        Raises WeightsError for weights that do not fit the architecture, BackendError when
        the core was not built or does not know the architecture, or SUBLLM_ISA names
        kernels that this CPU does not run.
        """
        weights = DecoderWeights(source, screen=screen and not exact)
        self._vocab_size = source.spec.vocab_size
        self._weight_bytes = weights.nbytes
        self._exact_widths = weights.integers and not exact
        with _refusals():
            self._decoder = native.core().Decoder(
                source.spec.to_dict(),
                weights.shared,
                weights.layers,
                kv,
                threads or usable_cores(),
                exact,
            )
            self._block_bytes = int(self._decoder.kv_block_bytes)

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    @property
    def resident_bytes(self) -> int:
        with _refusals():
            return self._weight_bytes + int(self._decoder.kv_bytes)

    @property
    def kv_bytes_per_token(self) -> int:
        return self._block_bytes // KV_BLOCK

    @property
    def kv_shares(self) -> bool:
        return True

    @property
    def kv_room(self) -> int | None:
        return None  # the machine's memory, which others share out

    @property
    def exact_widths(self) -> bool:
        """Sums of integers are exact; those of floats depend on their order."""
        return self._exact_widths

    def kv_open(self) -> int:
        with _refusals():
            return int(self._decoder.kv_open())

    def kv_fork(self, source: int, length: int) -> int:
        """Full blocks are shared until one of the two writes to them."""
        with _refusals():
            return int(self._decoder.kv_fork(source, length))

    def kv_close(self, handle: int) -> None:
        with _refusals():
            self._decoder.kv_close(handle)

    def step(self, chunks: Sequence[Chunk]) -> list[Choices]:
        with _refusals():
            work = [
                (
                    chunk.kv,
                    chunk.start,
                    as_tokens(chunk.tokens),
                    [pack_draw(draw) for draw in chunk.draws],
                )
                for chunk in chunks
            ]
            return [tuple(map(_choice, found)) for found in self._decoder.step(work)]

    def score(
        self, kv: int, start: int, tokens: TokenArray, targets: TokenArray, top: int
    ) -> list[TokenLogprob]:
        with _refusals():
            found = self._decoder.score(kv, start, as_tokens(tokens), as_tokens(targets), top)
        if None in found:
            raise LogitsError
        return [TokenLogprob(*entry) for entry in found]

    def logits(self, kv: int, start: int, tokens: TokenArray) -> npt.NDArray[np.float32]:
        """float32 [tokens, vocab] of a chunk, for tests; memory grows with both."""
        ids = as_tokens(tokens)
        out = np.empty((len(ids), self._vocab_size), np.float32)
        with _refusals():
            self._decoder.logits(kv, start, ids, out)
        return out

    def close(self) -> None:
        with _refusals():
            self._decoder.close()


def _choice(found: tuple[int | None, Any]) -> Choice | LogitsError:
    """What the core says of one draw."""
    token, logprob = found
    if token is None:
        return LogitsError()
    return Choice(token, None if logprob is None else TokenLogprob(*logprob))
