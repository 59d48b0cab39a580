"""Models of the store side by side: loaded together, measured in turn."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import psutil

from subllm.engine.backends.table import BACKENDS
from subllm.engine.bandwidth import weight_bytes_per_token
from subllm.engine.choice import choose_backend
from subllm.engine.computing import Computing
from subllm.engine.limits import EngineLimits
from subllm.engine.loader import load_engine
from subllm.engine.measure import (
    Probe,
    Round,
    Series,
    kv_tokens,
    longest_sequence,
)
from subllm.engine.request import Engine
from subllm.models.arch.spec import ArchSpec
from subllm.models.store.manifest import ModelManifest
from subllm.models.store.model_files import open_model
from subllm.models.store.store import Store


@dataclass(frozen=True)
class ModelSpeed:
    """What was measured of one model; units as in `Round`.

    weight_bytes     that a decoded token reads; None where the backend does not compute on
                     the packed weights
    resident_growth  of this process, in bytes, by loading and warming up the model
    """

    digest: str
    manifest: ModelManifest
    weight_bytes: int | None
    resident_growth: int
    prefill: Series
    decode: Series
    batch_decode: Series
    first_token: Series

    @property
    def bytes_per_second(self) -> float | None:
        """Weights read per second while one sequence is decoded, by the median."""
        return None if self.weight_bytes is None else self.weight_bytes * self.decode.median


def measure_models(
    store: Store,
    names: Sequence[str],
    *,
    computing: Computing = Computing(),
    prompt_tokens: int = 512,
    tokens: int = 128,
    repeat: int = 5,
    on_round: Callable[[int], None] = lambda number: None,
) -> list[ModelSpeed]:
    """Measures every model `repeat` times, in turn and each round in the opposite order, so
    that what else the machine does meets all alike. `on_round` hears of rounds 1, 2, ...
    Raises what `load_engine` and `Probe` raise.
    """
    chosen = choose_backend(computing.backend, computing.device)
    computing = replace(computing, backend=chosen)
    with suppress(ImportError):  # the code is not part of what a model adds to memory
        importlib.import_module(BACKENDS[chosen].module)
    engines: list[Engine] = []
    probes: list[Probe] = []
    growths: list[int] = []
    try:
        for name in names:
            before = psutil.Process().memory_info().rss
            engine = load_engine(
                store,
                name,
                computing=computing,
                limits=EngineLimits(kv_tokens=kv_tokens(prompt_tokens, tokens)),
                context_length=longest_sequence(prompt_tokens, tokens),
            )
            engines.append(engine)
            vocab_size = ArchSpec.from_dict(store.model(name).arch).vocab_size
            probe = Probe(engine, vocab_size, prompt_tokens=prompt_tokens, tokens=tokens)
            probe.warm_up()
            probes.append(probe)
            growths.append(psutil.Process().memory_info().rss - before)
        rounds: dict[int, list[Round]] = {index: [] for index in range(len(probes))}
        for number in range(1, repeat + 1):
            on_round(number)
            for index in sorted(rounds, reverse=number % 2 == 0):
                rounds[index].append(probes[index].round())
    finally:
        for loaded in engines:
            loaded.close()
    return [
        _speed(store, name, computing, growth, rounds[index])
        for index, (name, growth) in enumerate(zip(names, growths, strict=True))
    ]


def _speed(
    store: Store,
    name: str,
    computing: Computing,
    growth: int,
    rounds: Sequence[Round],
) -> ModelSpeed:
    weight_bytes = None
    if computing.backend == "native":
        with open_model(store, name) as files:
            weight_bytes = weight_bytes_per_token(files, screened=computing.screened_head)
    return ModelSpeed(
        digest=store.resolve(name),
        manifest=store.model(name),
        weight_bytes=weight_bytes,
        resident_growth=growth,
        prefill=Series(tuple(item.prefill for item in rounds)),
        decode=Series(tuple(item.decode for item in rounds)),
        batch_decode=Series(tuple(item.batch_decode for item in rounds)),
        first_token=Series(tuple(item.first_token for item in rounds)),
    )
