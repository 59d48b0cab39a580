"""The packs that come with subllm, one language each.

A pack is `data/LANGUAGE.jsonl.xz`, answers of an open model, or for recovery to learn from
`data/code/LANGUAGE.jsonl.xz`, code of released packages, or `data/written/LANGUAGE.jsonl.xz`,
functions that an open model wrote: JSON lines under xz. The first is the header
    {"pack": "python", "version": 1, "provenance": {...}}
and each other one a sample
    {"id": ..., "split": "train" | "heldout", "instruction": ..., "answer": "code",
     "tag": "python", "code": ...}      or with "answer": "prose" and "text"
    {"id": ..., "split": "train", "answer": "file", "tag": "python", "code": ...}
The header of a code pack says under which licence each package is, and has its notice.
"""

from __future__ import annotations

import hashlib
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from subllm.errors import CalibrationError, UnknownNameError
from subllm.making.calibration.source import Document, Split
from subllm.models.tables.seeded import key

DATA = Path(__file__).with_name("data")
CODE = DATA / "code"
WRITTEN = DATA / "written"
_SUFFIX = ".jsonl.xz"

Kind = Literal["pack", "code", "written"]


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PackHeader(_Line):
    pack: str
    version: Literal[1]
    provenance: dict[str, Any]


class _Sample(_Line):
    id: str = Field(min_length=1)
    split: Literal["train", "heldout"]


class _Answer(_Sample):
    instruction: str = Field(min_length=1)


class FileSample(_Sample):
    """Code that answers nothing."""

    answer: Literal["file"]
    tag: str = Field(min_length=1)
    code: str = Field(min_length=1)

    @property
    def instruction(self) -> str:
        return ""


class CodeSample(_Answer):
    answer: Literal["code"]
    tag: str = Field(min_length=1)
    code: str = Field(min_length=1)


class ProseSample(_Answer):
    answer: Literal["prose"]
    text: str = Field(min_length=1)


Sample = CodeSample | ProseSample | FileSample
_SAMPLE: TypeAdapter[Sample] = TypeAdapter(Annotated[Sample, Field(discriminator="answer")])


@dataclass(frozen=True)
class Pack:
    header: PackHeader
    samples: tuple[Sample, ...]


def pack_names() -> tuple[str, ...]:
    """The languages that have a pack."""
    return _names(DATA)


def code_names() -> tuple[str, ...]:
    """The languages that have a pack of released code."""
    return _names(CODE)


def written_names() -> tuple[str, ...]:
    """The languages that have a pack of written functions."""
    return _names(WRITTEN)


def pack_bytes(language: str, kind: Kind = "pack") -> int:
    """Bytes of a shipped pack, compressed: how much text it is beside others."""
    return (_directory(kind) / (language + _SUFFIX)).stat().st_size


def packs_digest(language: str) -> str:
    """sha256-<hex> over all packs of a language (of all languages for "general" what recovery
    reads), so that it shows when a version brings other text."""
    hasher = hashlib.sha256()
    for directory in (DATA, CODE, WRITTEN):
        for name in _names(directory):
            if name == language or (language == "general" and directory != DATA):
                data = (directory / (name + _SUFFIX)).read_bytes()
                hasher.update(f"{directory.name}/{name} {len(data)}\n".encode() + data)
    return f"sha256-{hasher.hexdigest()}"


def _directory(kind: Kind) -> Path:
    return {"pack": DATA, "code": CODE, "written": WRITTEN}[kind]


def _names(directory: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name.removesuffix(_SUFFIX) for path in directory.glob("*" + _SUFFIX)))


def read_pack(path: Path) -> Pack:
    """Raises CalibrationError naming the line that is malformed, or an id used twice."""
    number = 0
    samples: dict[str, Sample] = {}
    try:
        with lzma.open(path, "rt", encoding="utf-8") as lines:
            number = 1
            header = PackHeader.model_validate_json(next(lines, ""))
            for number, line in enumerate(lines, 2):
                sample = _SAMPLE.validate_json(line)
                if sample.id in samples:
                    raise CalibrationError(f"{path}:{number}: id {sample.id!r} occurs twice")
                samples[sample.id] = sample
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise CalibrationError(
            f"{path}:{number}: {where + ': ' if where else ''}{first['msg']}; reinstall subllm"
        ) from error
    except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise CalibrationError(f"{path} cannot be read ({error}); reinstall subllm") from error
    return Pack(header, tuple(samples.values()))


KINDS: dict[str, Kind] = {"pack": "pack", "code": "code", "written": "written"}
_LABELS: dict[Kind, str] = {"pack": "pack", "code": "code pack", "written": "pack of functions"}


class PackSource:
    """One split of a shipped pack."""

    def __init__(self, language: str, split: Split, kind: Kind = "pack") -> None:
        """Raises CalibrationError with the nearest names for a pack that is not there."""
        directory = _directory(kind)
        known = _names(directory)
        if language not in known:
            hint = f"packs are {', '.join(known) or 'missing'}; or give --calibration PATH"
            raise CalibrationError(str(UnknownNameError(_LABELS[kind], language, known, hint)))
        self.name = f"{kind}:{language}"
        self._path = directory / (language + _SUFFIX)
        self._split = split

    def documents(self, seed: int) -> Iterator[Document]:
        samples = [s for s in read_pack(self._path).samples if s.split == self._split]
        for sample in sorted(samples, key=lambda sample: key(seed, sample.id)):
            if isinstance(sample, ProseSample):
                yield Document(sample.id, sample.text, sample.instruction)
            else:
                yield Document(sample.id, sample.code, sample.instruction, sample.tag)
