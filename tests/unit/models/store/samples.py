"""Small manifests, and processes that die where a test wants them to."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers

from subllm.models.catalog.prompt import PromptSpec
from subllm.models.store.manifest import (
    BaseManifest,
    BaseRef,
    FileEntry,
    Licence,
    MethodRecord,
    ModelBlobs,
    ModelManifest,
    RunRecord,
    TensorEntry,
    sha256_of,
)
from subllm.models.store.names import split_model_name
from subllm.models.store.store import Store
from subllm.models.text.tokenizer import Tokenizer

BASE = "tiny:1m"
PROMPT = PromptSpec(context_length=64)
LICENCE = Licence(id="Apache-2.0", text="Do as you like.")
RUN = RunRecord(
    created="2026-01-02T03:04:05Z", seconds=1.5, peak_memory_bytes=1, host="here", threads=2
)


def base_manifest(weights: bytes, name: str = BASE, local: Path | None = None) -> BaseManifest:
    """A base of one file, whose bytes lie in the store, or at `local`."""
    file = FileEntry(
        name="model.gguf",
        size=len(weights),
        digest=sha256_of(weights),
        local_path=str(local) if local else None,
    )
    return BaseManifest(
        name=name,
        source="path:here",
        weights="gguf",
        files=(file,),
        licence=LICENCE,
        prompt=PROMPT,
    )


def model_manifest(
    name: str,
    own: bytes,
    shared: bytes,
    tokenizer: bytes,
    base: str,
    *,
    plan: str = "",
    tensors: tuple[TensorEntry, ...] = (),
) -> ModelManifest:
    """A model whose blobs hold these bytes; `base` is the digest of a base's manifest."""
    parts = split_model_name(name)
    return ModelManifest(
        layout=1,
        name=name,
        language=parts.language,
        tag=parts.tag,
        base=BaseRef(name=parts.base, manifest=base, source="path:here", licence=LICENCE),
        plan=plan or sha256_of(name.encode() + own),
        method=MethodRecord(name="magnitude"),
        pattern="8:16",
        values="int8",
        head="int8",
        calibration=None,
        arch={},
        prompt=PROMPT,
        tensors=tensors,
        blobs=ModelBlobs(
            own=sha256_of(own), shared=sha256_of(shared), tokenizer=sha256_of(tokenizer)
        ),
        density=0.5,
    )


def add_base(store: Store, weights: bytes, name: str = BASE) -> str:
    """Put and name a base; returns the digest of its manifest."""
    with store.writing():
        store.blobs.put(weights)
        digest = store.put_manifest(base_manifest(weights, name))
        store.set_ref(name, digest)
    return digest


def add_model(
    store: Store,
    name: str,
    own: bytes,
    shared: bytes = b"shared",
    tokenizer: bytes = b"tokenizer",
    base: str | None = None,
    **more: Any,
) -> str:
    """Put and name a model with its sidecar; returns the digest of its manifest."""
    base = base or sha256_of(b"some base")
    with store.writing():
        for data in (own, shared, tokenizer):
            store.blobs.put(data)
        digest = store.put_manifest(model_manifest(name, own, shared, tokenizer, base, **more))
        store.put_run_record(digest, RUN)
        store.set_ref(name, digest)
    return digest


def tokenizer_bundle() -> bytes:
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(alphabet)}
    raw = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = tokenizers.decoders.ByteLevel()
    raw.add_special_tokens(["<|end|>"])
    files = {
        "tokenizer.json": raw.to_str().encode(),
        "tokenizer_config.json": b'{"eos_token": "<|end|>"}',
    }
    return Tokenizer.from_files(files).to_bundle()


def files_below(*directories: Path) -> set[str]:
    return {
        path.name for directory in directories if directory.exists() for path in directory.iterdir()
    }


def blobs_of(store: Store) -> set[str]:
    return files_below(store.workspace.blobs)


class Child:
    """A forked process that runs `work` and may be talked to through two pipes.

    `work` gets `tell()`, which lets `hear()` here return, and `wait()`, which blocks until
    `tell()` is called here.
    """

    def __init__(self, work: Callable[[Callable[[], None], Callable[[], None]], None]) -> None:
        from_child, to_here = os.pipe()
        from_here, to_child = os.pipe()
        self._in, self._out = from_child, to_child
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.close(from_child)
                os.close(to_child)
                work(lambda: os.write(to_here, b"x") and None, lambda: _expect(from_here))
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        os.close(to_here)
        os.close(from_here)

    def hear(self) -> None:
        _expect(self._in)

    def tell(self) -> None:
        os.write(self._out, b"x")

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        assert os.WTERMSIG(self._end()) == signal.SIGKILL

    def runs(self) -> bool:
        """Whether it has not ended yet; its end is left for `join`."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def join(self) -> None:
        status = self._end()
        assert status == 0, f"the child ended with status {status}; see its traceback"

    def was_killed(self) -> bool:
        """Wait for the end: True when SIGKILL ended it, False when it ended well."""
        status = self._end()
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            return True
        assert status == 0, f"the child ended with status {status}; see its traceback"
        return False

    def _end(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        os.close(self._in)
        os.close(self._out)
        return status


def _expect(descriptor: int) -> None:
    assert os.read(descriptor, 1) == b"x", "the other process is gone"


_FILE_EVENTS = frozenset(
    ["open", "os.rename", "os.remove", "os.mkdir", "os.chmod", "fcntl.flock", "os.listdir"]
)


def killed_at(step: int, work: Callable[[], None]) -> bool:
    """Run `work` in a child that SIGKILLs itself before its file operation number `step`.

    False when `work` ended before that many operations.
    """

    def run(_tell: Callable[[], None], _wait: Callable[[], None]) -> None:
        left = step

        def hook(event: str, _arguments: tuple[Any, ...]) -> None:
            nonlocal left
            if event in _FILE_EVENTS:
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1

        sys.addaudithook(hook)
        work()

    return Child(run).was_killed()
