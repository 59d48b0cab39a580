"""What measuring needs, opened when first needed."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from subllm.evaluation.engines import Engines
from subllm.evaluation.sandbox import Sandbox
from subllm.evaluation.toolchains import Toolchain, toolchain
from subllm.progress import Progress
from subllm.store.store import Store


class Bench:
    """Engines of whoever made this, and a sandbox of its own; use as a context manager."""

    def __init__(
        self,
        store: Store,
        engines: Engines,
        records: Path,
        progress: Progress,
        *,
        threads: int | None = None,
        offline: bool = False,
        unsafe: bool = False,
    ) -> None:
        """records  directory of the files with every completion, question and verdict
        unsafe   run programs although this machine cannot contain them
        """
        self.store = store
        self.engines = engines
        self.records = records
        self.progress = progress
        self.threads = threads
        self.offline = offline
        self._unsafe = unsafe
        self._sandbox: Sandbox | None = None
        self._tools: dict[str, Toolchain] = {}

    def toolchain(self, language: str) -> Toolchain:
        """Raises SandboxError, ToolchainMissingError."""
        if self._sandbox is None:
            self._sandbox = Sandbox(unsafe=self._unsafe)
            for line in self._sandbox.enforced or ("nothing is enforced",):
                self.progress.note(f"sandbox: {line}")
            for line in self._sandbox.missing:
                self.progress.note(f"not enforced here: {line}")
        if language not in self._tools:
            self._tools[language] = toolchain(language, self._sandbox)
        return self._tools[language]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._sandbox is not None:
            self._sandbox.close()
