"""The TOML file that describes a study; what it leaves out is as in `default.toml`."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from subllm.errors import UsageError
from subllm.languages import parse_languages
from subllm.located_toml import read_toml
from subllm.making.extraction.defaults import DEFAULT_SAMPLES
from subllm.measuring.evaluation.asking import Asking, split
from subllm.measuring.evaluation.study.options import StudyOptions, parse_calibrations, parse_data

FORMAT = 1

Names = Annotated[list[str], BeforeValidator(split)]


class StudyFile(Asking):
    """Every key is described in `default.toml`."""

    format: int = Field(default=FORMAT, ge=1, le=FORMAT)
    base: Names = Field(default=["qwen2.5-coder:0.5b"])
    base_name: str = ""
    calibration: list[str] = Field(default=["general", "python", "java", "cpp", "javascript"])
    models: Names = Field(default=[])
    methods: Names = Field(default=["wanda"])
    patterns: Names = Field(default=["8:16"])
    values: str = "int8"
    head: str = "int8"
    sequences: int = Field(default=DEFAULT_SAMPLES, ge=1)
    seq_len: int = Field(default=512, ge=8)
    tasks: Names = Field(default=["humaneval-x"])
    language: Names = Field(default=[])
    data: list[str] = Field(default=[])

    def options(self) -> StudyOptions:
        """Raises UsageError for what is malformed or names nothing."""
        tasks = tuple(self.tasks)
        files, own = parse_data(self.data, tasks)
        return StudyOptions(
            bases=tuple(self.base),
            calibrations=parse_calibrations(self.calibration),
            tasks=tasks,
            how=self.task_options(parse_languages(",".join(self.language)), files, own),
            methods=tuple(self.methods),
            patterns=tuple(self.patterns),
            values=self.values,
            head=self.head,
            sequences=self.sequences,
            length=self.seq_len,
            models=tuple(self.models),
        )

    def to_toml(self) -> str:
        """All of it, a line a key."""
        said = self.model_dump(exclude_none=True)
        return "".join(f"{key} = {json.dumps(value)}\n" for key, value in said.items())


def default_text() -> str:
    """The built-in study with a word on every key."""
    return files(__package__).joinpath("default.toml").read_text(encoding="utf-8")


def read_study_file(path: Path) -> StudyFile:
    """Raises UsageError with the line of what is wrong."""
    try:
        text = path.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UsageError(f"{path} cannot be read ({reason}); check the path") from error
    return read_toml(text, StudyFile, str(path), newest=FORMAT)
