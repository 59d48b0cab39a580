"""Text of one language: which task is next, and what its answer is good for."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from subllm.making.textmaking.judge import Judge, Sample
from subllm.making.textmaking.raw_answers import RawAnswer, RawAnswers
from subllm.making.textmaking.tasks import Form, Task, derived


@dataclass(frozen=True)
class Wanted:
    """forms: which texts are made from now on; own: tasks from the user's code, in turn with roots;
    roots: tasks that need no text before them."""

    forms: Collection[Form]
    roots: Iterator[Task]
    own: Iterator[Task] = field(default_factory=lambda: iter(()))


class Maker:
    """Hands out tasks and takes answers. Answers that are there already are judged first, in
    the order in which they came, so that a run that stopped goes on as if it had not.

    samples    what was accepted, steps left out
    tokens     of the answers that these are, by form
    rejected   answers by why they were
    written    tokens of all answers
    """

    def __init__(
        self,
        answers: RawAnswers,
        judge: Judge,
        wanted: Wanted,
        on_replayed: Callable[[], None] = lambda: None,
    ) -> None:
        """on_replayed: called after each answer that was there already."""
        self.samples: list[Sample] = []
        self.tokens: Counter[Form] = Counter()
        self.rejected: Counter[str] = Counter()
        self.written = 0
        self._answers, self._judge, self._wanted = answers, judge, wanted
        self._made: deque[Task] = deque()
        self._given = {answer.task.id for answer in answers}
        self._turn = 0
        for answer in answers:
            self._judged(answer)
            on_replayed()

    @property
    def answered(self) -> int:
        return len(self._answers)

    def next(self) -> Task | None:
        """A task that was not given yet: of those that follow from a text, else of the user's
        code and the roots in turn; None when there are no more."""
        while self._made:
            task = self._made.popleft()
            if self._first_time(task):
                return task
        sources = (self._wanted.own, self._wanted.roots)
        self._turn += 1
        for source in (sources[self._turn % 2], sources[1 - self._turn % 2]):
            for task in source:
                if self._first_time(task):
                    return task
        return None

    def _first_time(self, task: Task) -> bool:
        if task.id in self._given:
            return False
        self._given.add(task.id)
        return True

    def take(self, answer: RawAnswer) -> bool:
        """Keep the answer; whether it makes a sample. Raises DiskFullError, StoreError."""
        self._answers.append(answer)
        return self._judged(answer)

    def _judged(self, answer: RawAnswer) -> bool:
        self.written += answer.tokens
        found = self._judge.judge(answer)
        if isinstance(found, str):
            self.rejected[found] += 1
            return False
        self._made.extend(derived(answer.task, found.text, self._wanted.forms))
        if answer.task.step:
            return False
        self.samples.append(found)
        self.tokens[found.form] += found.tokens
        return True
