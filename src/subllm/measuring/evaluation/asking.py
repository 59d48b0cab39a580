"""How tasks are asked, as a person writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from subllm.measuring.evaluation.options import TaskOptions
from subllm.measuring.evaluation.prompts import Asked

_SAMPLED = 0.8  # temperature where several samples are asked for and none is given


def split(value: Any) -> Any:
    """["a,b", "c"] and "a,b,c" as ["a", "b", "c"]"""
    parts = value if isinstance(value, list) else [value]
    found: list[Any] = []
    for part in parts:
        whole = not isinstance(part, str)
        found += [part] if whole else [one.strip() for one in part.split(",") if one.strip()]
    return list(dict.fromkeys(found))


class Asking(BaseModel):
    """limit: first problems, sequences or prompts; of domains, so many questions. prompt: how
    problems are put: raw (text to go on with), chat (the model's template), auto. batch:
    completions written at once."""

    model_config = ConfigDict(extra="forbid")

    k: Annotated[list[int], BeforeValidator(split)] = [1]
    samples: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0)
    top_p: float = Field(default=1.0, ge=0, le=1)
    max_tokens: int = Field(default=512, ge=1)
    seed: int = Field(default=0, ge=0)
    limit: int | None = Field(default=None, ge=1)
    prompt: Asked = "raw"
    batch: int = Field(default=24, ge=1)

    def task_options(
        self, languages: tuple[str, ...], files: Sequence[Path], own: Mapping[str, Path]
    ) -> TaskOptions:
        """With the languages and the data that a command asks for."""
        samples = max(self.k, default=1) if self.samples is None else self.samples
        usual = 0.0 if samples == 1 else _SAMPLED
        return TaskOptions(
            languages=languages,
            files=tuple(file.expanduser() for file in files),
            own={task: path.expanduser() for task, path in own.items()},
            samples=samples,
            ks=tuple(sorted(set(self.k))),
            temperature=usual if self.temperature is None else self.temperature,
            top_p=self.top_p,
            max_tokens=self.max_tokens,
            seed=self.seed,
            limit=self.limit,
            form=self.prompt,
            together=self.batch,
        )
