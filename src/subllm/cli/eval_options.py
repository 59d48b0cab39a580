"""The options that `subllm eval` and `subllm study` have in common: how tasks are asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

if TYPE_CHECKING:
    from subllm.measuring.evaluation.options import TaskOptions
    from subllm.measuring.evaluation.prompts import Asked

_SAMPLED = 0.8  # temperature where several samples are asked for and none is given

Json = Annotated[bool, typer.Option("--json", help="Print the results as one JSON document.")]


@dataclass(frozen=True)
class TaskChoices:
    """As typed; `task_options` says what that amounts to."""

    k: Annotated[str, typer.Option("--k", help="The k of pass@k, several as 1,10.")] = "1"
    samples: Annotated[
        int | None, typer.Option(min=1, help="Completions of each problem. Default: largest k.")
    ] = None
    temperature: Annotated[
        float | None,
        typer.Option(min=0, help="0 is greedy. Default: 0 for one sample, 0.8 for several."),
    ] = None
    top_p: Annotated[float, typer.Option(min=0, max=1, help="Share of the mass sampled from.")] = (
        1.0
    )
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest completion.")] = 512
    seed: Annotated[int, typer.Option(min=0, help="Decides what is sampled.")] = 0
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Only the first problems, sequences or prompts; of domains, so many questions.",
        ),
    ] = None
    prompt: Annotated[
        str,
        typer.Option(
            "--format",
            help="How problems are put: raw (text to go on with), chat (the model's template), "
            "auto (chat where there is a template).",
        ),
    ] = "raw"
    batch: Annotated[int, typer.Option(min=1, help="Completions written at once.")] = 24
    unsafe: Annotated[
        bool,
        typer.Option("--unsafe", help="Run programs although this machine cannot contain them."),
    ] = False

    def task_options(
        self, languages: tuple[str, ...], files: Sequence[Path], own: Mapping[str, Path]
    ) -> TaskOptions:
        """With the languages and the data that a command asks for.

        Raises UsageError for a --k that is no list, or a --format that is not known.
        """
        from subllm.measuring.evaluation.options import TaskOptions

        ks = self._ks()
        samples = max(ks) if self.samples is None else self.samples
        usual = 0.0 if samples == 1 else _SAMPLED
        return TaskOptions(
            languages=languages,
            files=tuple(file.expanduser() for file in files),
            own={task: path.expanduser() for task, path in own.items()},
            samples=samples,
            ks=ks,
            temperature=usual if self.temperature is None else self.temperature,
            top_p=self.top_p,
            max_tokens=self.max_tokens,
            seed=self.seed,
            limit=self.limit,
            form=self._form(),
            together=self.batch,
        )

    def _ks(self) -> tuple[int, ...]:
        from subllm.errors import UsageError

        try:
            return tuple(sorted({int(part) for part in self.k.split(",")}))
        except ValueError:
            raise UsageError(f"--k {self.k!r} is no list of numbers; write 1,10") from None

    def _form(self) -> Asked:
        from subllm.errors import UsageError

        if self.prompt not in ("raw", "chat", "auto"):
            raise UsageError(f"--format {self.prompt!r} is none of raw, chat, auto")
        return cast("Asked", self.prompt)
