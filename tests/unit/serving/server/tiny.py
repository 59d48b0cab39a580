"""A server over real tiny engines: torch, random weights, one token for each byte."""

from __future__ import annotations

import contextlib
import functools
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import numpy as np
import openai
from local_engines import local_engine
from oracles import tiny_models
from oracles.packed_models import PackedMemory
from oracles.proposers import Eager

from subllm.engine.backend import Backend
from subllm.engine.backends.native import NativeBackend
from subllm.engine.backends.torch import TorchBackend
from subllm.engine.draft import Draft
from subllm.engine.kv_room import KvRoom
from subllm.engine.request import (
    FinishReason,
    Request,
    SpeculationStats,
    TokenEvent,
    TokenLogprob,
)
from subllm.models.arch.registry import spec_from_config
from subllm.models.arch.tensors import tensor_shapes
from subllm.models.catalog.prompt import FimSpec, PromptSpec
from subllm.models.store.manifest import (
    BaseManifest,
    BaseRef,
    Licence,
    Manifest,
    MethodRecord,
    ModelBlobs,
    ModelManifest,
    TensorEntry,
    sha256_of,
)
from subllm.models.text.tokenizer import Tokenizer
from subllm.serving.server.app import create_app
from subllm.serving.server.config import ServerConfig
from subllm.serving.server.convert import Plan
from subllm.serving.server.footprint import Footprint
from subllm.serving.server.jobs import ModelRef
from subllm.serving.server.models import ModelSet
from subllm.serving.server.page.state import Facts
from subllm.serving.server.run import Server, bind, uvicorn_config
from subllm.serving.server.worker import EngineWorker

BASE = "tiny:1m"
PYTHON, JAVA, CPP = (f"{BASE}-{language}" for language in ("python", "java", "cpp"))
LARGE, SMALL = "tiny:2m-dense", f"{BASE}-dense"
SWAPPED = sha256_of(b"another tokenizer")
CONTEXT = 256
PATIENCE = 120.0
"""Seconds until something that is bound to come has failed to: many, for machines under load."""
VOCAB, END = tiny_models.VOCAB, tiny_models.END
SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
}
PRE, SUF, MID, SEP = range(259, 263)
MARKERS = {PRE: "<|pre|>", SUF: "<|suf|>", MID: "<|mid|>", SEP: "<|sep|>"}
TEMPLATE = (
    "{% for tool in tools or [] %}[tool {{ tool.function.name }}]{% endfor %}"
    "{% for m in messages %}[{{ m.role }}]"
    "{% for call in m.tool_calls or [] %}<tool_call>{{ call | tojson }}</tool_call>{% endfor %}"
    "{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
FIM = FimSpec(prefix="<|pre|>", suffix="<|suf|>", middle="<|mid|>", file_separator="<|sep|>")
PROMPT = PromptSpec(fim=FIM, context_length=CONTEXT)

# What the model writes for a seed, whatever the prompt: see `Engine.add`.
SCRIPTS: dict[int, tuple[int, ...]] = {
    7: tuple("aé€😀.".encode()),
    8: (*b"abc", END),
    9: tuple(b"abcdefgh"),
    10: (97, tiny_models.FILL, 98),
}


@functools.cache
def tokenizer() -> Tokenizer:
    return _tokenizer(tuple(range(256)))


@functools.cache
def swapped_tokenizer() -> Tokenizer:
    return _tokenizer((1, 0, *range(2, 256)))


def _tokenizer(order: tuple[int, ...]) -> Tokenizer:
    definition = json.loads(json.loads(tiny_models.tokenizer().to_bundle())["tokenizer"])
    like = definition["added_tokens"][0]
    definition["added_tokens"] += [
        {**like, "id": token, "content": text} for token, text in MARKERS.items()
    ]
    vocab = definition["model"]["vocab"]
    definition["model"]["vocab"] = {text: order[token] for text, token in vocab.items()}
    config = {"eos_token": "<|end|>", "chat_template": TEMPLATE}
    return Tokenizer.from_files(
        {
            "tokenizer.json": json.dumps(definition).encode(),
            "tokenizer_config.json": json.dumps(config).encode(),
        }
    )


def weights_of(name: str) -> tiny_models.MemorySource:
    """Those of a smaller dense model are those of the larger one: it guesses every token."""
    return weights(sum(name.replace(SMALL, LARGE).encode()) % 1000)


@functools.cache
def weights(seed: int) -> tiny_models.MemorySource:
    """Random weights, made here: to have transformers make them takes seconds."""
    spec = spec_from_config({**SHAPE, "model_type": "qwen2", "tie_word_embeddings": True})
    rng = np.random.default_rng(seed)
    tensors = {
        name: (rng.normal(0, 0.15, shape) + ("norm" in name)).astype(np.float32)
        for name, shape in tensor_shapes(spec).items()
    }
    return tiny_models.MemorySource(spec, tensors)


def torch_backend(name: str) -> Backend:
    return TorchBackend(weights_of(name), device="cpu", dtype="float32", threads=1)


def native_backend(name: str) -> Backend:
    """The one that can check drafts."""
    return NativeBackend(packed(weights_of(name)), threads=1)


@functools.cache
def packed(given: tiny_models.MemorySource) -> PackedMemory:
    return PackedMemory(given, "int8")


class Engine:
    """The real engine, watched. `delay` slows every step, `gate` holds it, `hold_at` closes
    the gate when so many steps are done, `fail` breaks the next step, `broken` names another
    method that raises. Steps take no time by its clock: how prompts are cut depends on nothing
    but `prefill_chunk`."""

    def __init__(self, name: str, *, native: bool = False, **options: Any) -> None:
        backend = (native_backend if native else torch_backend)(name)
        options = {"context_length": CONTEXT, "prefill_chunk": 16, **options}
        if not native:  # drafting wants to know what it costs
            options = {"clock": lambda: 0.0, **options}
        self._engine = local_engine(backend, tokenizer(), name=name, **options)
        self.name = name
        self.delay = 0.0
        self.gate = threading.Event()
        self.gate.set()
        self.hold_at: int | None = None
        self.held = False
        self.fail: Exception | None = None
        self.broken = ""
        self.requests: list[Request] = []
        self.aborted: list[str] = []
        self.steps = 0
        self.closed = False

    context_length = property(lambda self: self._engine.context_length)

    @property
    def resident_bytes(self) -> int:
        if self.broken == "resident_bytes":
            raise RuntimeError("broken")
        return self._engine.resident_bytes

    def add(self, request: Request) -> None:
        self.requests.append(request)
        script = SCRIPTS.get(request.params.seed or 0)
        if script is not None:
            # Each token once, in this order: a bias for each and a penalty on repeating.
            bias = tuple((token, 1e4 - 50 * i) for i, token in enumerate(script))
            params = replace(request.params, logit_bias=bias, presence_penalty=1e6)
            request = replace(request, params=params)
        self._engine.add(request)

    @property
    def kv_budget(self) -> int:
        return self._engine.kv_budget

    @kv_budget.setter
    def kv_budget(self, value: int) -> None:
        self._engine.kv_budget = value

    @property
    def on_card(self) -> bool:
        return False

    def share_kv(self, room: KvRoom) -> None:
        self._engine.share_kv(room)

    @property
    def speculation(self) -> SpeculationStats:
        return self._engine.speculation

    @property
    def speculates(self) -> bool:
        return self._engine.speculates

    def set_draft(self, draft: Draft | None) -> None:
        if self.broken == "set_draft" and draft is not None:
            raise RuntimeError("broken")
        self._engine.set_draft(draft)

    def step(self, allowance: int | None = None, seconds: float | None = None) -> list[TokenEvent]:
        self._pause(self.steps)
        self.steps += 1
        if self.fail is not None:
            raise self.fail
        return self._engine.step(allowance, seconds)

    def _pause(self, done: int) -> None:
        if self.hold_at is not None and done >= self.hold_at:
            self.hold_at, self.held = None, True
            self.gate.clear()
        self.gate.wait(PATIENCE)
        time.sleep(self.delay)

    def abort(self, request_id: str, reason: FinishReason = "abort") -> None:
        if self.broken == "abort":
            raise RuntimeError("broken")
        self.aborted.append(request_id)
        self._engine.abort(request_id, reason)

    def has_work(self) -> bool:
        return self._engine.has_work()

    def score(self, tokens: tuple[int, ...], top: int = 0) -> list[TokenLogprob | None]:
        return self._engine.score(tokens, top)

    def close(self) -> None:
        self.closed = True
        self._engine.close()


def manifest(name: str, language: str, **changes: Any) -> ModelManifest:
    digest = sha256_of(b"")
    fields: dict[str, Any] = {
        "layout": 1,
        "name": name,
        "language": language,
        "base": BaseRef(name=BASE, manifest=digest, source="path:x", licence=Licence(id="MIT")),
        "plan": digest,
        "method": MethodRecord(name="none"),
        "pattern": "8:16",
        "values": "int8",
        "head": "int8",
        "calibration": None,
        "arch": {},
        "prompt": PROMPT,
        "tensors": (),
        "blobs": ModelBlobs(own=digest, shared=digest, tokenizer=digest),
        "density": 0.5,
    }
    return ModelManifest(**{**fields, **changes})


@dataclass
class Shelf:
    """A `ManifestSource` and the loader of its models."""

    manifests: dict[str, Manifest | Exception] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    engines: list[Engine] = field(default_factory=list)
    drafts: list[Draft] = field(default_factory=list)
    loading: Callable[[str], None] = lambda name: None

    def names(self) -> dict[str, str]:
        return {name: f"{name}@{id(manifest)}" for name, manifest in self.manifests.items()}

    def manifest(self, name_or_digest: str) -> Manifest:
        found = self.manifests[name_or_digest.partition("@")[0]]
        if isinstance(found, Exception):
            raise found
        return found

    def load(self, ref: ModelRef) -> Engine:
        self.loading(ref.name)
        engine = Engine(ref.name, **self.options)
        self.engines.append(engine)
        return engine

    def load_draft(self, ref: ModelRef) -> Draft:
        self.loading(f"draft {ref.name}")
        text = self.tokenizer_of(self.manifest(ref.name))
        draft = Draft(ref.name, ref.version, native_backend(ref.name), text)
        self.drafts.append(draft)
        return draft

    def tokenizer_of(self, manifest: Manifest) -> Tokenizer:
        """Of models whose blob says so, one with two tokens in each other's place."""
        assert isinstance(manifest, ModelManifest)
        return swapped_tokenizer() if manifest.blobs.tokenizer == SWAPPED else tokenizer()

    def footprint(self, ref: ModelRef) -> Footprint:
        """As if a third of the weights were shared by all."""
        weights, kv = needs(self.options.get("native", False))
        return Footprint({ref.name: weights - weights // 3, "shared": weights // 3}, kv)

    def engine(self, name: str) -> Engine:
        """The newest engine of a model."""
        return next(engine for engine in reversed(self.engines) if engine.name == name)


@functools.cache
def needs(native: bool = False) -> tuple[int, int]:
    """Bytes of the weights of every model here, and of the keys and values of a context."""
    engine = Engine(PYTHON, native=native)
    found = engine.resident_bytes, engine.kv_budget
    engine.close()
    return found


def shelf(**options: Any) -> Shelf:
    """Python, Java and C++ models of one base, and the base itself, which is not served."""
    base = BaseManifest(
        name=BASE, source="x", weights="gguf", files=(), licence=Licence(id="MIT"), prompt=PROMPT
    )
    models = {n: manifest(n, n.rpartition("-")[2]) for n in (PYTHON, JAVA, CPP)}
    return Shelf({BASE: base, **models}, options)


def family(**options: Any) -> Shelf:
    """A dense model of a larger base, and a smaller base of the family with dense, Python and
    Java models; besides, a dense model of another family and one of other tokens."""

    def sized(name: str, parameters: int, **changes: Any) -> ModelManifest:
        base, _, language = name.partition("-")
        weights = TensorEntry(
            name="w",
            shape=(parameters,),
            blob="own",
            pattern="dense" if language == "dense" else "8:16",
            values="int8",
            kept=parameters if language == "dense" else parameters // 2,
        )
        digest = sha256_of(b"")
        ref = BaseRef(name=base, manifest=digest, source="path:x", licence=Licence(id="MIT"))
        return manifest(name, language, base=ref, tensors=(weights,), **changes)

    small = [sized(f"{BASE}-{language}", 1000) for language in ("dense", "python", "java")]
    blobs = small[0].blobs.model_copy(update={"tokenizer": SWAPPED})
    others = [
        sized(LARGE, 2000),
        sized("tiny:2m-python", 2000),
        sized("other:1m-dense", 1000),
        sized("tiny:swapped-cpp", 1000, blobs=blobs),
    ]
    options = {"native": True, "pace": Eager(), **options}
    return Shelf({model.name: model for model in [*small, *others]}, options)


@dataclass(frozen=True)
class Live:
    shelf: Shelf
    server: Server
    worker: EngineWorker
    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @functools.cached_property
    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=PATIENCE)

    @functools.cached_property
    def openai(self) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=PATIENCE
        )

    def post(self, path: str, /, **body: Any) -> httpx.Response:
        return self.http.post(path, json=body)

    def health(self) -> dict[str, Any]:
        return dict(self.http.get("/health").json())


@contextlib.contextmanager
def live(
    shelf: Shelf,
    *,
    facts: Facts | None = None,
    planned: Callable[[Plan], None] = lambda plan: None,
    **config: Any,
) -> Iterator[Live]:
    """uvicorn on a free port, as `serve` runs it, in a thread."""
    settings = ServerConfig(**{"port": 0, "default_base": BASE, **config})
    models = ModelSet(
        shelf,
        shelf.load,
        shelf.tokenizer_of,
        load_draft=shelf.load_draft,
        footprint=shelf.footprint,
    )
    app = create_app(models, settings, facts=facts, planned=planned)
    ready: list[tuple[str, int]] = []
    up = threading.Event()

    def on_ready(host: str, port: int) -> None:
        ready.append((host, port))
        up.set()

    server = Server(uvicorn_config(app), app.state.worker, on_ready)
    listener = bind("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        assert up.wait(PATIENCE)
        yield Live(shelf, server, app.state.worker, *ready[0])
    finally:
        for engine in shelf.engines:
            engine.gate.set()
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive()


def until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait for what another thread will bring about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)
