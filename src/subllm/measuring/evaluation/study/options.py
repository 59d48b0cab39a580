"""What a study is asked to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from subllm.errors import UsageError
from subllm.languages import GENERAL, LANGUAGES, canonical
from subllm.making.extraction.defaults import DEFAULT_SAMPLES
from subllm.measuring.evaluation.measures.table import reads_problems, with_parts
from subllm.measuring.evaluation.options import TaskOptions
from subllm.measuring.evaluation.study.sources import public
from subllm.models.catalog.loader import Catalog
from subllm.models.store.names import check_language

DOMAIN_NAMES = ("code", "math", "csr", "translation", "generic")


@dataclass(frozen=True)
class Calibration:
    """language: of the sub-model, as in its name. source: as `subllm extract --calibration`
    takes it; "" is the language's own pack."""

    language: str
    source: str = ""

    @property
    def text(self) -> str:
        """As it is written on the command line, without directories of this machine."""
        if not self.source:
            return self.language
        if _hub_language(self.source) == self.language:
            return self.source
        return f"{self.language}={public(self.source)}"

    def domain(self, catalog: Catalog) -> str:
        """code, math, csr, translation, generic; "" where nobody knows."""
        kind, _, name = self.source.partition(":")
        if kind == "hub" and name in catalog.calibration_sets:
            return catalog.calibration_set(name).domain
        if self.language in LANGUAGES:
            return "code"
        if self.language == GENERAL:
            return "generic"
        return self.language if self.language in DOMAIN_NAMES else ""


@dataclass(frozen=True)
class StudyOptions:
    """methods, patterns, values, head, sequences (of calibration), length (of them, tokens)
    as in extraction; how: tasks are asked; models: names in the store, which are measured
    instead of what the others say, their bases being `bases`."""

    bases: tuple[str, ...]
    calibrations: tuple[Calibration, ...]
    tasks: tuple[str, ...]
    how: TaskOptions = field(default_factory=TaskOptions)
    methods: tuple[str, ...] = ("wanda",)
    patterns: tuple[str, ...] = ("8:16",)
    values: str = "int8"
    head: str = "int8"
    sequences: int = DEFAULT_SAMPLES
    length: int = 512
    models: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for what in ("bases", "calibrations", "tasks", "methods", "patterns"):
            if not getattr(self, what):
                raise UsageError(f"a study without {what} measures nothing; name at least one")
        files = self.how.files
        if files and not any(map(reads_problems, self.tasks)):
            raise UsageError(
                f"{files[0].name} is of no task here; write TASK=PATH, as in "
                f'data = ["{self.tasks[0]}=PATH"]'
            )


def parse_calibrations(texts: Sequence[str]) -> tuple[Calibration, ...]:
    """Of `python,java`, `hub:math_qa` and `LANGUAGE=SOURCE`, the latter one in each text.

    Raises UsageError for a name that no sub-model may have, or that is given twice.
    """
    found: list[Calibration] = []
    for text in texts:
        if "=" in text:
            language, _, source = text.partition("=")
            found.append(Calibration(_language(language), source.strip()))
            continue
        for part in filter(None, map(str.strip, text.split(","))):
            if part.startswith("hub:"):
                found.append(Calibration(_language(_hub_language(part)), part))
            else:
                found.append(Calibration(_language(part.removeprefix("pack:"))))
    for calibration in found:
        if found.count(calibration) > 1:
            raise UsageError(f"calibration names {calibration.language} twice; name it once")
    return tuple(found)


def parse_data(texts: Sequence[str], tasks: Sequence[str]) -> tuple[list[Path], dict[str, Path]]:
    """Files, and those of one task (`TASK=PATH`, where TASK is one of `tasks` or of a domain
    among them)."""
    tasks = with_parts(tasks)
    files: list[Path] = []
    own: dict[str, Path] = {}
    for text in texts:
        task, equals, path = text.partition("=")
        if equals and task in tasks:
            own[task] = Path(path).expanduser()
        else:
            files.append(Path(text).expanduser())
    return files, own


def _hub_language(source: str) -> str:
    """The language that a set of the hub stands for: its name, spelled as languages are."""
    kind, _, name = source.partition(":")
    return name.replace("-", "_") if kind == "hub" else ""


def _language(text: str) -> str:
    return check_language(canonical(text.strip()))
