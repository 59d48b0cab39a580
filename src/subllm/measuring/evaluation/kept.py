"""The built-in problems right after a sub-model was made: what it has kept, in problems solved."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from subllm.engine.bandwidth import read_bandwidth, weight_bytes_per_token
from subllm.machine import usable_cores
from subllm.measuring.evaluation.bench import Bench
from subllm.measuring.evaluation.builtin import BUILTIN, LANGUAGES
from subllm.measuring.evaluation.measures.dense import any_dense_of
from subllm.measuring.evaluation.measures.measure import Measure
from subllm.measuring.evaluation.measures.table import load_measures
from subllm.measuring.evaluation.options import TaskOptions
from subllm.measuring.evaluation.study.estimate import Clock
from subllm.models.store.model_files import open_model

__all__ = ["LANGUAGES", "Asking", "Kept", "plan_asking"]

_ASKED: int | None = None  # of the problems; all of them


@dataclass(frozen=True)
class Kept:
    """Greedy, one completion each, as `subllm eval --task builtin` asks them.

    asked         problems, of which `solved` were solved
    dense         the dense model that was asked the same; None, with dense_solved, where the
                  store has none of this base
    records       file with every completion and verdict
    """

    language: str
    asked: int
    solved: int
    dense: str | None
    dense_solved: int | None
    records: str

    @property
    def share(self) -> float | None:
        """Of what the dense base solves; None where that is nothing or not known."""
        return self.solved / self.dense_solved if self.dense_solved else None

    def document(self) -> dict[str, Any]:
        return {**asdict(self), "kept": self.share}


@dataclass(frozen=True)
class Asking:
    """What will be asked of whom, with the seconds that it will take where nothing of it is
    in the records yet: a guess within a factor of two or three."""

    name: str
    dense: str | None
    seconds: float
    measure: Measure

    @property
    def asked(self) -> int:
        return self.measure.asked

    def run(self, bench: Bench) -> Kept:
        """Raises as `Measure.run`. What is stopped goes on where it was; of the dense model
        nothing is asked twice."""
        result = self.measure.run(bench, self.name)
        left = result.figures.get("retention", {})
        return Kept(
            language=self.measure.language,
            asked=self.asked,
            solved=sum(1 for count in result.passed.values() if count),
            dense=left.get("dense"),
            dense_solved=left.get("dense_solved"),
            records=str(result.path),
        )


def plan_asking(bench: Bench, name: str) -> Asking:
    """For the sub-model `name`, whose language is one of LANGUAGES.

    Raises SandboxError or ToolchainMissingError where programs cannot be run here, StoreError.
    """
    store, language = bench.store, bench.store.model(name).language
    options = TaskOptions(languages=(language,), limit=_ASKED)
    (measure,) = load_measures(BUILTIN, options, bench, [bench.text(name)])
    measure.prepare(bench)
    dense = any_dense_of(store, name)
    cores = bench.threads or usable_cores()
    clock = Clock(lambda: read_bandwidth(cores), cores)
    seconds = 0.0
    for model in (name, dense) if dense else (name,):
        with open_model(store, model) as files:
            size = weight_bytes_per_token(files)
        seconds += clock.guess(measure.load(bench.text(model)), size)
    return Asking(name, dense, seconds, measure)
