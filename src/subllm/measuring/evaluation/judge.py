"""Completions to verdicts: what a model writes is run beside its writing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass

from subllm.engine.request import SamplingParams
from subllm.measuring.evaluation.generate import Answer, Ask
from subllm.measuring.evaluation.problems import INFILL, Problem
from subllm.measuring.evaluation.programs import program_of, stop_rule
from subllm.measuring.evaluation.prompts import Form, Prompter
from subllm.measuring.evaluation.record_file import RecordFile
from subllm.measuring.evaluation.records import Sample, Sampling
from subllm.measuring.evaluation.toolchains import Verdict
from subllm.models.tables.seeded import key
from subllm.models.text.hole_end import Hole
from subllm.progress import Progress, bar


@dataclass(frozen=True)
class _Open:
    """A program whose verdict is awaited."""

    verdict: Future[Verdict]
    problem: Problem
    index: int
    answer: Answer
    program: str


class Judge:
    """Runs programs in `pool` through `check` and records each verdict.

    Equal programs run once.
    """

    def __init__(
        self,
        records: RecordFile,
        problems: tuple[Problem, ...],
        form: Form,
        check: Callable[[str], Verdict],
        pool: Executor,
    ) -> None:
        self._records = records
        self._problems = {problem.id: problem for problem in problems}
        self._form = form
        self._check = check
        self._pool = pool
        self._verdicts: dict[str, Future[Verdict]] = {}
        self._open: list[_Open] = []

    def asks(self, prompter: Prompter, sampling: Sampling, samples: int) -> list[Ask]:
        """What the records do not have yet. Samples of one problem stand side by side:
        they share their prompt's keys and values. Each has a random stream of its own."""
        done = {(sample.problem, sample.index) for sample in self._records.of(Sample)}
        asks = []
        for problem in self._problems.values():
            ids, begun = prompter.ids(problem)
            for index in range(samples):
                if (problem.id, index) in done:
                    continue
                params = SamplingParams(
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    max_tokens=sampling.max_tokens,
                    stop=problem.stops if prompter.form == "raw" else (),
                    seed=key("sample", sampling.seed, problem.id, index),
                )
                rule = stop_rule(problem, prompter.form)
                identity = f"{index}:{problem.id}"
                whole = rule is None and problem.kind == INFILL
                hole = Hole.between(problem.prompt, problem.suffix) if whole else None
                ask = Ask(identity, ids, params, rule, loops=True, begun=begun, hole=hole)
                asks.append(ask)
        return asks

    def run(self, answers: Iterator[Answer], total: int, progress: Progress) -> None:
        """Every answer to its verdict, in the records when this returns."""
        with bar(progress, "samples", "completions", total, "items"):
            for answer in answers:
                self._submit(answer)
                self._record()
                progress.advance("samples")
        if not self._open:
            return
        with bar(progress, "checks", "programs left to run", len(self._open), "items"):
            while self._open:
                wait([one.verdict for one in self._open], return_when=FIRST_COMPLETED)
                progress.advance("checks", self._record())

    def _submit(self, answer: Answer) -> None:
        index, _, identity = answer.id.partition(":")
        problem = self._problems[identity]
        program = program_of(problem, answer.text, self._form)
        verdict = self._verdicts.get(program)
        if verdict is None:
            verdict = self._verdicts[program] = self._pool.submit(self._check, program)
        self._open.append(_Open(verdict, problem, int(index), answer, program))

    def _record(self) -> int:
        """Lines for all verdicts that are there; how many."""
        waiting = []
        for one in self._open:
            if one.verdict.done():
                self._records.append(self._sample(one, one.verdict.result()))
            else:
                waiting.append(one)
        count = len(self._open) - len(waiting)
        self._open = waiting
        return count

    def _sample(self, one: _Open, verdict: Verdict) -> Sample:
        answer, solution = one.answer, one.problem.canonical
        exact = None
        if one.problem.kind == INFILL and solution is not None:
            exact = answer.text.strip() == solution.strip()
        return Sample(
            run=self._records.key,
            problem=one.problem.id,
            index=one.index,
            raw=answer.raw,
            kept=len(answer.text),
            program=one.program,
            ended=answer.ended,
            tokens=answer.tokens,
            seconds=round(answer.seconds, 3),
            status=verdict.status,
            detail=verdict.detail,
            check_seconds=round(verdict.seconds, 3),
            exact=exact,
        )
