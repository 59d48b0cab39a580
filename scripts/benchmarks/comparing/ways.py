"""Which ways there are to serve a base, and what each is made of."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.engines.models import dense, sub_model
from benchmarks.engines.peer import (
    PACKAGE,
    base_gguf,
    gguf_bytes_per_token,
    peer_environment,
    peer_python,
    quantized,
)

from subllm.engine.bandwidth import weight_bytes_per_token
from subllm.measuring.evaluation.facts import model_facts
from subllm.measuring.evaluation.records import ModelFacts
from subllm.models.store.files import hash_file
from subllm.models.store.manifest import sha256_of
from subllm.models.store.model_files import open_model
from subllm.models.store.store import Store

from .versions import engine_version

ENGINES = Path(__file__).resolve().parents[1] / "engines"
REFERENCE = "llama.cpp Q4_K_M"
PEER, DENSE, SPARSE = "llama.cpp", "subllm, dense", "subllm, Python sub-model"
DRAFTS = {"qwen2.5-coder:1.5b": "qwen2.5-coder:0.5b"}
"""The base that drafts for a base, dense in int4, as `routing.drafts` would choose; others draft
with n-grams alone."""


@dataclass(frozen=True)
class Way:
    """One way to serve the base.

    weights  type of the GGUF, or value type of our model
    drafts   what its worker is asked for: "" for plain decoding
    """

    title: str
    family: str
    weights: str
    drafts: str = ""

    @property
    def plain(self) -> str:
        """The title of the same without drafts, which writes the same texts."""
        return self.title.partition(",")[0]


WAYS = (
    Way("llama.cpp Q8_0", PEER, "Q8_0"),
    Way("llama.cpp Q4_K_M", PEER, "Q4_K_M"),
    Way("llama.cpp Q3_K_S", PEER, "Q3_K_S"),
    Way("llama.cpp Q4_K_M, lookup 2", PEER, "Q4_K_M", "lookup 2"),
    Way("llama.cpp Q4_K_M, lookup 10", PEER, "Q4_K_M", "lookup 10"),
    Way("dense bf16", DENSE, "bf16"),
    Way("dense bf16, drafts", DENSE, "bf16", "auto"),
    Way("dense int8", DENSE, "int8"),
    Way("dense int8, drafts", DENSE, "int8", "auto"),
    Way("dense int4", DENSE, "int4"),
    Way("dense int4, drafts", DENSE, "int4", "auto"),
    Way("8:16 int8", SPARSE, "int8"),
    Way("8:16 int4", SPARSE, "int4"),
)
"""lookup N: prompt lookup of at most N tokens; llama-cpp-python's default is 10, and 2 what it
advises for CPUs."""


@dataclass(frozen=True)
class Served:
    """A way with all that it needs at hand.

    command, environment  of its worker, without the sizes that follow
    tail     arguments of the command that come after the sizes
    read     bytes of weights for a token, draft_read: for one of the draft model
    draft    the model that its worker has at hand to draft with, "" for none
    version  of the engine: records of another are not its own
    """

    way: Way
    model: ModelFacts
    command: tuple[str, ...]
    environment: dict[str, str]
    tail: tuple[str, ...]
    read: int
    draft_read: int
    draft: str
    draft_digest: str
    version: str

    def sizes(self, threads: int, longest: int, together: int) -> list[str]:
        """The whole command of a worker for requests of `longest` tokens, `together` at once."""
        return [*self.command, str(threads), str(longest), str(together), *self.tail]


def chosen(only: list[str]) -> list[Way]:
    """The ways whose titles hold one of `only`; all for none. A word in quotes of its own, as in
    "=dense int4", means that title alone."""
    if not only:
        return list(WAYS)
    found = [
        way
        for way in WAYS
        if any(w[1:] == way.title if w.startswith("=") else w in way.title for w in only)
    ]
    if not found:
        titles = ", ".join(way.title for way in WAYS)
        sys.exit(f"--only names none of: {titles}")
    return found


def prepare(
    ways: list[Way], store: Store, base: str, *, python: str, gguf: str, draft: str
) -> list[Served]:
    """All of `ways`, with models and files made where they are not there.

    python  interpreter that has llama-cpp-python, "" to make one
    gguf    Q4_K_M file, "" for the base's own
    draft   model that drafts; "" for the one of DRAFTS, "none" for n-grams alone
    """
    served = []
    peer = peer_python(python) if any(way.family == PEER for way in ways) else ""
    drafting = draft_model(store, base, draft) if any(_drafted(way) for way in ways) else ""
    for way in ways:
        if way.family == PEER:
            served.append(_peer(way, store, base, peer, gguf))
        else:
            served.append(_ours(way, store, base, drafting))
    return served


def _drafted(way: Way) -> bool:
    return bool(way.drafts) and way.family != PEER


def draft_model(store: Store, base: str, given: str) -> str:
    """The model that drafts for a dense model of `base`: `given`, or the one of DRAFTS, made where
    it is not there; "" for none."""
    if given:
        return "" if given == "none" else given
    return dense(store, DRAFTS[base], "int4") if base in DRAFTS else ""


def _peer(way: Way, store: Store, base: str, python: str, gguf: str) -> Served:
    source = base_gguf(store, base, gguf)
    path = source if way.weights == "Q4_K_M" else quantized(python, source, way.weights)
    manifest = store.base(base)
    digest = hash_file(source) if gguf else manifest.files[0].digest
    if path != source:  # made of it, by this version of the peer
        digest = sha256_of(f"{digest} {way.weights} {PACKAGE}".encode())
    facts = ModelFacts(
        name=f"llama.cpp:{way.weights.lower()}",
        digest=digest,
        language="dense",
        base=base,
        base_digest=store.resolve(base),
        base_source=manifest.source,
        method="llama.cpp",
        pattern="dense",
        values=way.weights,
        head=way.weights,
        density=1.0,
    )
    command = (python, str(ENGINES / "llama_cpp_completing.py"), str(path))
    read = gguf_bytes_per_token(path)
    return Served(way, facts, command, peer_environment(), (), read, 0, "", "", PACKAGE)


def _ours(way: Way, store: Store, base: str, draft: str) -> Served:
    make = dense if way.family == DENSE else sub_model
    name = make(store, base, way.weights)
    draft = draft if way.family == DENSE else ""
    command = (sys.executable, str(ENGINES / "ours_completing.py"), name)
    read, draft_read = _read(store, name), _read(store, draft) if draft else 0
    tail = (draft,) if draft else ()
    facts = model_facts(store, name)
    digest = store.resolve(draft) if draft else ""
    version = engine_version()
    return Served(way, facts, command, {}, tail, read, draft_read, draft, digest, version)


def _read(store: Store, name: str) -> int:
    with open_model(store, name) as files:
        return weight_bytes_per_token(files)


def without_drafts(served: Served) -> Served:
    """The same weights decoded plainly."""
    way = replace(served.way, title=served.way.plain, drafts="")
    return replace(served, way=way)


def known(served: Served) -> dict[str, Any]:
    """What decides how fast it is beside machine and prompts."""
    return {
        "model": served.model.digest,
        "drafts": served.way.drafts,
        "draft": served.draft_digest if served.way.drafts else "",
        "version": served.version,
    }
