"""Runs models from damaged packed files, over and over, in a process of its own.

    python -m fuzz.packed_models STORE... --seconds 60 [--seed 1] [--first 0] [--cases N]

Each STORE holds one sound model (`oracles.packed_models.NAME`). A case puts a damaged copy in
the place of one of its blobs, loads the model as a user's command does, and generates; in
some cases the backend gets fenced copies of the planes instead. Good ends are one of our
errors or tokens. A crash, another exception or a hang ends the process; then the damaged
blob is still in the store, and `case.json` beside the stores says which case it was.
Prints how the cases ended, as JSON.
"""

from __future__ import annotations

import argparse
import collections
import faulthandler
import json
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from native_build import use_test_build

from fuzz.damages import damage
from fuzz.fences import FencedSource
from subllm.engine.backend import Chunk, Draw
from subllm.engine.backends.native import NativeBackend
from subllm.engine.computing import Computing
from subllm.engine.loader import PackedSource, load_engine
from subllm.engine.request import Request, SamplingParams
from subllm.errors import BackendError, LogitsError, WeightsError
from subllm.models.store.model_files import open_model
from subllm.models.store.store import Store

NAME = "tiny:1m-python"
HANG_SECONDS = 120
BLOCK = 20  # cases in a row that damage the same file: changing over costs as much as a case
PARAMS = (
    SamplingParams(max_tokens=2),
    SamplingParams(max_tokens=3, logprobs=3, ignore_eos=True),
    SamplingParams(max_tokens=2, temperature=0.8, top_p=0.9, min_p=0.01, repetition_penalty=1.2),
    SamplingParams(max_tokens=2, temperature=1.5, top_k=20, presence_penalty=0.5, logprobs=0),
)


@dataclass(frozen=True)
class Sample:
    """A store, and the sound bytes of one of its blobs."""

    store: Store
    path: Path
    sound: bytes


def samples(roots: list[Path]) -> list[Sample]:
    found = []
    for root in roots:
        store = Store(root)
        blobs = store.model(NAME).blobs
        for digest in (blobs.own, blobs.shared):
            found.append(Sample(store, store.blobs.path(digest), store.blobs.read_bytes(digest)))
    return found


def put(path: Path, data: bytes) -> None:
    """A new file in the place of the old one, which may still be mapped."""
    partial = path.with_name("fuzzed.partial")
    partial.write_bytes(data)
    partial.replace(path)


class Attempt:
    """One case; `stage` tells how far it came: "open", "step" (the model is loaded), "ran"."""

    def __init__(self, store: Store, rng: random.Random) -> None:
        self.stage = "open"
        self._store, self._rng = store, rng

    def run(self, *, fence: bool) -> None:
        try:
            if fence:
                self._fenced()
            else:
                self._as_users_do()
            self.stage = "ran"
        except (WeightsError, BackendError, LogitsError) as error:
            assert str(error) and "\n" not in str(error), repr(error)

    def _as_users_do(self) -> None:
        rng = self._rng
        engine = load_engine(
            self._store,
            NAME,
            computing=Computing(
                backend="native",
                threads=rng.choice([1, 2]),
                kv_type=rng.choice(["bfloat16", "int8"]),
                dtype=rng.choice(["bfloat16", "bfloat16", "bfloat16", "float32"]),
            ),
        )
        self.stage = "step"
        params = rng.choice(PARAMS)
        prompt = tuple(rng.randrange(256) for _ in range(rng.choice([1, 2, 9, 40])))
        engine.add(Request("r", prompt, params))
        tokens = [token for _ in range(8) for event in engine.step() for token in event.tokens]
        assert not engine.has_work()
        assert len(tokens) <= params.max_tokens  # none where the first one ends the text
        engine.close()

    def _fenced(self) -> None:
        rng = self._rng
        with open_model(self._store, NAME) as files:
            source = FencedSource(PackedSource(files), front=rng.random() < 0.3)
            backend = NativeBackend(
                source, threads=rng.choice([1, 2]), exact=rng.random() < 0.2, kv="bfloat16"
            )
        self.stage = "step"
        ids = np.array([rng.randrange(256) for _ in range(rng.choice([1, 3, 8, 21]))], np.int32)
        kv, draw = backend.kv_open(), Draw(rng.choice(PARAMS), ids, 1, rng.random())
        for start, tokens in ((0, ids), (len(ids), ids[:1])):
            ((choice,),) = backend.step([Chunk(kv, start, tokens, (draw,))])
            if isinstance(choice, LogitsError):
                raise choice
            assert 0 <= choice.token < backend.vocab_size
        backend.score(kv, 0, ids, ids, 2)
        backend.close()


class Case:
    """What happens now, for whoever finds the process dead."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)

    def say(self, **facts: Any) -> None:
        text = json.dumps(facts).encode().ljust(400)
        os.pwrite(self._file.fileno(), text, 0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("stores", type=Path, nargs="+")
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--cases", type=int, default=10**9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()

    if use_test_build() is None:  # a sanitizer tells more of a crash than Python does
        faulthandler.enable()
    known = samples(options.stores)
    case = Case(options.stores[0].parent / "case.json")
    ends: collections.Counter[str] = collections.Counter()
    kinds: collections.Counter[str] = collections.Counter()
    deadline = time.monotonic() + options.seconds
    index = options.first
    while time.monotonic() < deadline and index < options.first + options.cases:
        block = random.Random(f"{options.seed}/block {index // BLOCK}")
        sample = block.choice(known)
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        while True:
            rng = random.Random(f"{options.seed}/{index}")
            kind, data = damage(rng, sample.sound, rng.choice(known).sound)
            fence = rng.random() < 0.4
            case.say(seed=options.seed, index=index, kind=kind, fence=fence, file=str(sample.path))
            put(sample.path, data)
            attempt = Attempt(sample.store, rng)
            attempt.run(fence=fence)
            ends[attempt.stage] += 1
            kinds[f"{kind}: {attempt.stage}"] += 1
            index += 1
            if index % BLOCK == 0 or index == options.first + options.cases:
                break
        put(sample.path, sample.sound)
        faulthandler.cancel_dump_traceback_later()
    print(json.dumps({"cases": index - options.first, "ends": ends, "kinds": kinds}))


if __name__ == "__main__":
    main()
