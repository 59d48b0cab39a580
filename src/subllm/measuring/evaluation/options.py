"""How tasks are asked, whichever models are measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from subllm.errors import UsageError
from subllm.measuring.evaluation.prompts import Asked
from subllm.measuring.evaluation.records import Sampling


@dataclass(frozen=True)
class TaskOptions:
    """languages    that benchmarks and texts are in; () for all that there are
    files        with benchmarks; own: task -> file or directory of that task
    samples      completions of each problem
    ks           of pass@k, each at most `samples`
    seed         decides what is sampled, the intervals, and which questions a limit leaves
    limit        first problems, sequences or prompts; of a domain so many questions
    together     completions that are written at once
    """

    languages: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    own: Mapping[str, Path] = field(default_factory=dict)
    samples: int = 1
    ks: tuple[int, ...] = (1,)
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 512
    seed: int = 0
    limit: int | None = None
    form: Asked = "raw"
    together: int = 24

    @property
    def sampling(self) -> Sampling:
        return Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            max_tokens=self.max_tokens,
            seed=self.seed,
        )

    def check_samples(self) -> None:
        """Raises UsageError for a k that cannot be known, or samples that would be equal."""
        if self.samples < 1 or not self.ks:
            raise UsageError("--samples and --k must name at least one sample")
        if max(self.ks) > self.samples or min(self.ks) < 1:
            raise UsageError(
                f"pass@{max(self.ks)} needs at least {max(self.ks)} samples; raise --samples"
            )
        if self.samples > 1 and self.temperature == 0:
            raise UsageError(
                "greedy completions of a problem are all the same; give --temperature, or "
                "--samples 1"
            )
