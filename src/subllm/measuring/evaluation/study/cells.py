"""From what a measurement gave to the line that the study keeps of it."""

from __future__ import annotations

from subllm.measuring.evaluation.measures.measure import Measure
from subllm.measuring.evaluation.records import Result, RunHeader
from subllm.measuring.evaluation.study.models import Candidate
from subllm.measuring.evaluation.study.sources import public
from subllm.measuring.report.study.records import Cell, CellSampling, Data, Model, Solutions
from subllm.models.store.manifest import ModelManifest


def cell_of(
    result: Result,
    candidate: Candidate,
    measure: Measure,
    manifest: ModelManifest,
    identity: str,
    seconds: float,
) -> Cell:
    """manifest: of the model; seconds: that the measurement took."""
    header, figures = result.header, result.figures
    solved = figures.get("canonical", {})
    solutions = None
    if solved.get("run"):
        solutions = Solutions(
            run=solved["run"], passed=solved["passed"], failing=tuple(solved["failing"])
        )
    return Cell(
        identity=identity,
        model=_model(header, candidate, manifest),
        task=header.task,
        language=header.language,
        domain=measure.domain,
        data=Data(
            source=public(header.data.source), digest=header.data.digest, rows=header.data.rows
        ),
        drawing=_sampling(header),
        asked=measure.asked,
        samples=measure.samples,
        scores=result.scores,
        passed=result.passed,
        solutions=solutions,
        notes=tuple(figures.get("notes", ())),
        harness=header.harness,
        tools=header.tools,
        made=result.new,
        seconds=round(seconds, 2),
        created=header.created,
    )


def _model(header: RunHeader, candidate: Candidate, manifest: ModelManifest) -> Model:
    facts, calibration = header.model, manifest.calibration
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
        recovery=manifest.recovery.budget if manifest.recovery else "",
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
