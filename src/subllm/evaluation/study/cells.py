"""From what a measurement gave to the line that the study keeps of it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from subllm.evaluation.records import Result, RunHeader, Sample, read_records
from subllm.evaluation.study.models import Candidate
from subllm.evaluation.study.sources import public
from subllm.evaluation.study.tasks import PassTask, StudyTask
from subllm.report.study.records import Cell, CellSampling, Data, Model, Score, Solutions
from subllm.store.manifest import CalibrationRecord


def cell_of(
    result: Result,
    candidate: Candidate,
    task: StudyTask,
    calibration: CalibrationRecord | None,
    identity: str,
    seconds: float,
) -> Cell:
    """calibration: of the model's manifest; seconds: that the measurement took."""
    header, figures = result.header, result.figures
    passed: dict[str, int] = {}
    if isinstance(task, PassTask):
        passed = _passed(result, task)
    solved = figures.get("canonical", {})
    solutions = None
    if solved.get("run"):
        solutions = Solutions(
            run=solved["run"], passed=solved["passed"], failing=tuple(solved["failing"])
        )
    return Cell(
        identity=identity,
        model=_model(header, candidate, calibration),
        task=header.task,
        language=header.language,
        domain=task.domain,
        data=Data(
            source=public(header.data.source), digest=header.data.digest, rows=header.data.rows
        ),
        drawing=_sampling(header),
        asked=task.asked,
        samples=task.samples,
        scores=_scores(figures),
        passed=passed,
        solutions=solutions,
        notes=tuple(figures.get("notes", ())),
        harness=header.harness,
        tools=header.tools,
        made=result.new,
        seconds=round(seconds, 2),
        created=header.created,
    )


def _model(header: RunHeader, candidate: Candidate, calibration: CalibrationRecord | None) -> Model:
    facts = header.model
    return Model(
        name=facts.name,
        digest=facts.digest,
        language=facts.language,
        base=facts.base,
        base_digest=facts.base_digest,
        base_source=public(facts.base_source),
        method=facts.method,
        pattern=facts.pattern,
        values=facts.values,
        head=facts.head,
        density=facts.density,
        calibration=public(calibration.source) if calibration else "",
        sequences=calibration.samples if calibration else 0,
        length=calibration.seq_len if calibration else 0,
        domain=candidate.domain,
    )


def _sampling(header: RunHeader) -> CellSampling | None:
    sampling = header.sampling
    if sampling is None or header.prompt is None:
        return None
    return CellSampling(
        prompt=header.prompt,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
        seed=sampling.seed if sampling.temperature else 0,
    )


def _scores(figures: dict[str, Any]) -> tuple[Score, ...]:
    if "pass" in figures:
        return tuple(
            Score(
                name=f"pass@{one['k']}", value=one["value"], low=one["low"], high=one["high"],
                k=one["k"],
            )
            for one in figures["pass"]
        )  # fmt: skip
    if "perplexity" in figures:
        return (Score(name="perplexity", value=figures["perplexity"]),)
    score = Score(
        name=figures["metric"], value=figures["score"], low=figures["low"], high=figures["high"]
    )
    return (score,)


def _passed(result: Result, task: PassTask) -> dict[str, int]:
    """Problem -> passing samples, of the problems and samples that were asked for."""
    asked = {problem.id for problem in task.plan.benchmark.problems}
    _, lines = read_records(result.path)
    return dict(
        sorted(
            Counter(
                line.problem
                for line in lines
                if isinstance(line, Sample)
                and line.problem in asked
                and line.index < task.samples
                and line.status == "passed"
            ).items()
        )
    )
