"""Every error that subllm raises on purpose.

Each message says what happened and what to do next, in one line. The CLI prints
it and exits with `exit_code`; the server turns it into an OpenAI error object.

    SubllmError
    |-- UsageError                  the request itself is wrong (exit 2)
    |   |-- UnknownNameError        no such base, sub-model, set or method
    |   |-- PatternError            a sparsity pattern that cannot be applied
    |   |-- CatalogError            a catalog file that does not validate
    |   |-- SettingsError           a configuration value that does not validate
    |   |-- TableError              a file of rows that cannot be read
    |   |-- CalibrationError        calibration data missing, empty or malformed
    |   |-- BenchmarkError          evaluation data missing, empty or malformed
    |   `-- MissingExtraError       an optional part of subllm is not installed
    |-- AcquireError                a model or data set could not be fetched or pushed (exit 3)
    |   |-- NetworkError            no source answered
    |   |-- OfflineError            the network is needed but switched off
    |   |-- GatedError              the source wants a token or an accepted licence
    |   |-- SharedModelsError       the source holds packed models, not a base
    |   `-- DigestError             the bytes are not the expected ones
    |-- NoModelError                nothing was extracted yet that could answer (exit 3)
    |-- StoreError                  the store cannot do what was asked (exit 4)
    |   |-- StoreVersionError       made by another, incompatible version
    |   |-- CorruptError            stored bytes do not match their digest
    |   |-- LockedError             another process holds the lock
    |   `-- DiskFullError           not enough free disk
    |-- WeightsError                a weights or packed file is malformed (exit 5)
    |   `-- LayoutError             a packed layout that this version cannot read
    |-- ExtractionError             pruning could not be carried out (exit 6)
    |-- EngineError                 generation could not be carried out (exit 7)
    |   |-- ContextLengthError      prompt plus max_tokens do not fit
    |   |-- EngineBusyError         the queue is full
    |   |-- DraftError              a model cannot draft for another
    |   |-- IncompleteError         an answer ended before its end
    |   |-- LogitsError             the model gave one request logits without order
    |   `-- BackendError            a backend is missing or does not fit the machine
    |       `-- DeviceError         a GPU is missing, lost, too old or out of memory
    |           `-- KernelError     a kernel does not run there, or gives other numbers
    |-- ServerError                 the daemon is missing or unreachable (exit 8)
    `-- EvaluationError             a measurement could not be carried out (exit 9)
        |-- SandboxError            programs cannot be contained here, or the sandbox failed
        `-- ToolchainMissingError   a language's compiler or interpreter is not installed
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


def excerpt(text: str, longest: int = 120) -> str:
    """What a message repeats of a text that somebody else chose: all of it, or beginning
    and end."""
    if len(text) <= longest:
        return text
    tail = longest // 3
    return f"{text[: longest - tail - 3]}...{text[-tail:]}"


class SubllmError(Exception):
    """Base of all errors raised on purpose; `str(error)` is one line for a person."""

    exit_code = 1


class UsageError(SubllmError):
    """The request itself is wrong: an option, a value or a combination."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name that is not known; carries the nearest known names.

    `kind` is what was looked for ("model", "base", "method", ...).
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        self.kind = kind
        self.name = name
        shown = excerpt(name)
        self.nearest = tuple(difflib.get_close_matches(shown, list(known), n=3, cutoff=0.5))
        message = f"unknown {kind} {shown!r}"
        if self.nearest:
            message += "; did you mean " + " or ".join(self.nearest) + "?"
        if hint:
            message += ("" if self.nearest else ";") + f" {hint}"
        super().__init__(message)


class PatternError(UsageError):
    """A sparsity pattern that is malformed or does not fit the tensor's shape."""


class CatalogError(UsageError):
    """A catalog file that does not validate; the message names file and line."""


class SettingsError(UsageError):
    """A configuration value that does not validate; the message names its source."""


class TableError(UsageError):
    """A file of rows that is damaged, of an unknown kind or no JSON; the message names it."""


class CalibrationError(UsageError):
    """Calibration data that is missing, empty or malformed."""


class BenchmarkError(UsageError):
    """Evaluation data that is missing, empty, malformed or of an unknown form."""


class MissingExtraError(UsageError):
    """An optional part of subllm is not installed; the message gives the pip command."""


class AcquireError(SubllmError):
    """A model or data set could not be fetched, or not be given away."""

    exit_code = 3


class NetworkError(AcquireError):
    """No source answered in time."""


class OfflineError(AcquireError):
    """The network is needed but `SUBLLM_OFFLINE` forbids it."""


class GatedError(AcquireError):
    """The source wants a token, or its licence accepted first."""


class SharedModelsError(AcquireError):
    """The source holds packed models, not a base; `subllm pull` fetches these too."""

    def __init__(self, source: str) -> None:
        super().__init__(
            f"{source} holds packed models, not a base; 'subllm pull {source}' fetches them"
        )


class DigestError(AcquireError):
    """The fetched bytes are not the expected ones; nothing was stored."""


class NoModelError(SubllmError):
    """The store has no model that could answer; the message says how to make one."""

    exit_code = 3


class StoreError(SubllmError):
    """The store cannot do what was asked."""

    exit_code = 4


class StoreVersionError(StoreError):
    """The store was written by an incompatible version."""


class CorruptError(StoreError):
    """Stored bytes do not match their digest."""


class LockedError(StoreError):
    """Another process holds the lock and waiting was not wanted."""


class DiskFullError(StoreError):
    """Not enough free disk space, found out before or while writing."""


class WeightsError(SubllmError):
    """A weights file or a packed file is malformed."""

    exit_code = 5


class LayoutError(WeightsError):
    """A packed file whose layout version or planes this version cannot read."""


class ExtractionError(SubllmError):
    """Pruning could not be carried out."""

    exit_code = 6


class EngineError(SubllmError):
    """Generation could not be carried out."""

    exit_code = 7


class ContextLengthError(EngineError):
    """Prompt plus completion do not fit the model's context."""


class EngineBusyError(EngineError):
    """The queue of waiting requests is full."""


class DraftError(EngineError):
    """A model cannot draft for another: its token ids mean something else."""


class LogitsError(EngineError):
    """The largest logit of a position is not finite: no token can be told from another.
    It is the failure of one request; others of the same step go on."""

    def __init__(self) -> None:
        super().__init__(
            "the model gave logits that are not finite; lower biases and penalties where there "
            "are any, else 'subllm verify' tells whether the model is damaged"
        )


class IncompleteError(EngineError):
    """An answer ended before its end. `partial` is what had come of it, as `--json` shows it."""

    def __init__(self, message: str, partial: dict[str, Any]) -> None:
        self.partial = partial
        super().__init__(message)


class BackendError(EngineError):
    """A backend is missing, or does not fit this machine."""


class DeviceError(BackendError):
    """A GPU is missing, was lost, has too old a driver or no memory left; models elsewhere go
    on."""


class KernelError(DeviceError):
    """A kernel does not run on a GPU, or computes something else there than it should."""


class ServerError(SubllmError):
    """The daemon is missing, unreachable or refused to start."""

    exit_code = 8


class EvaluationError(SubllmError):
    """A measurement could not be carried out, or would not mean anything."""

    exit_code = 9


class SandboxError(EvaluationError):
    """Programs cannot be contained on this machine, or the sandbox itself failed."""


class ToolchainMissingError(EvaluationError):
    """A language's compiler or interpreter is missing; the message says what to install."""
