"""What every measure needs: engines, tokenizers, tool chains, and where records go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from subllm.engine.computing import Computing
from subllm.measuring.evaluation.engines import Engines, EngineSource
from subllm.measuring.evaluation.facts import machine_facts, model_facts, now
from subllm.measuring.evaluation.prompts import Form
from subllm.measuring.evaluation.records import HARNESS, DataFacts, RunHeader, Sampling
from subllm.measuring.evaluation.sandbox import Sandbox
from subllm.measuring.evaluation.toolchains import Toolchain, toolchain
from subllm.models.catalog.prompt import PromptSpec
from subllm.models.store.store import Store
from subllm.models.store.tokenizers import open_tokenizer
from subllm.models.text.tokenizer import Tokenizer
from subllm.progress import Progress

if TYPE_CHECKING:
    from subllm.settings import Settings

DIRECTORY = "evaluations"
"""Of the records, in the store."""


@dataclass(frozen=True, eq=False)
class TextSide:
    """How all models of `base` read text."""

    base: str
    tokenizer: Tokenizer
    prompt: PromptSpec


@dataclass(frozen=True)
class Containing:
    """unsafe  run programs although this machine cannot contain them
    quiet   do not tell how programs are contained
    """

    unsafe: bool = False
    quiet: bool = False


class Bench:
    """Opens what is needed when it is first needed; a context manager that closes it."""

    def __init__(
        self,
        store: Store,
        engines: EngineSource,
        records: Path,
        progress: Progress,
        *,
        computing: Computing = Computing(),
        offline: bool = False,
        containing: Containing = Containing(),
    ) -> None:
        """records    directory of the files with every completion, question and verdict
        computing  device and threads that models are made with, where some must be
        offline    take data of the hub from its cache only
        """
        self.store = store
        self.engines = engines
        self.records = records
        self.progress = progress
        self.device = computing.device
        self.threads = computing.threads
        self.offline = offline
        self._containing = containing
        self._sandbox: Sandbox | None = None
        self._toolchains: dict[str, Toolchain] = {}
        self._texts: dict[str, TextSide] = {}

    def text(self, model: str) -> TextSide:
        """Raises UnknownNameError, UsageError for a base, StoreError."""
        manifest = self.store.model(model)
        base = manifest.base
        if base.manifest not in self._texts:
            tokenizer = open_tokenizer(self.store, manifest)
            self._texts[base.manifest] = TextSide(base.name, tokenizer, manifest.prompt)
        return self._texts[base.manifest]

    def toolchain(self, language: str) -> Toolchain:
        """Raises SandboxError, ToolchainMissingError."""
        if self._sandbox is None:
            self._sandbox = Sandbox(unsafe=self._containing.unsafe)
            if not self._containing.quiet:
                self._tell(self._sandbox)
        if language not in self._toolchains:
            self._toolchains[language] = toolchain(language, self._sandbox)
        return self._toolchains[language]

    def header(
        self,
        model: str,
        task: str,
        language: str,
        data: DataFacts,
        *,
        prompt: Form | None = None,
        sampling: Sampling | None = None,
        tools: Mapping[str, str] | None = None,
    ) -> RunHeader:
        """Of a measurement that is made here, now.

        tools: what decides the result beside model, data and engine. Raises as `text`.
        """
        return RunHeader(
            task=task,
            language=language,
            model=model_facts(self.store, model),
            data=data,
            prompt=prompt,
            sampling=sampling,
            harness=HARNESS,
            tools={**self.engines.tools(), **(tools or {})},
            machine=machine_facts(self.threads),
            created=now(),
        )

    def _tell(self, sandbox: Sandbox) -> None:
        for line in sandbox.enforced or ("nothing is enforced",):
            self.progress.note(f"sandbox: {line}")
        for line in sandbox.missing:
            self.progress.note(f"not enforced here: {line}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._sandbox is not None:
                self._sandbox.close()
        finally:
            self.engines.close()


def open_bench(
    store: Store,
    settings: Settings,
    progress: Progress,
    *,
    records: Path | None = None,
    unsafe: bool = False,
    quiet: bool = False,
) -> Bench:
    """A bench as the settings say. records: by default in the store."""
    computing = Computing.of(settings)
    return Bench(
        store,
        Engines(store, computing),
        (records or settings.home / DIRECTORY).expanduser(),
        progress,
        computing=computing,
        offline=settings.offline,
        containing=Containing(unsafe, quiet),
    )
