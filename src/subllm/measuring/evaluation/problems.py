"""A problem of a benchmark, whatever form it came in."""

from __future__ import annotations

from dataclasses import dataclass, replace

FUNCTION, PROGRAM, INFILL = "function", "program", "infill"


@dataclass(frozen=True)
class Problem:
    """One thing to write and the test that decides.

    id         as its data set names it
    kind       "function": finish what `prompt` began; "program": write all of it;
               "infill": write what stands between `prompt` and `suffix`
    prompt     what a raw completion goes on from
    asked      the task in words, for a chat; "" where the prompt itself is shown
    head       what the program has before the completion: the prompt, or what stands for it
    suffix     what the program has after the completion, before the test
    test       ends the process with another status than 0, or fails otherwise, unless all
               of it passes
    canonical  the data's own solution as a completion; None where the form has none
    entry      name of the function that is tested, "" when the form does not tell
    stops      strings before which the completion ends; () where the language's rule holds
    """

    id: str
    language: str
    kind: str
    prompt: str
    head: str
    test: str
    asked: str = ""
    suffix: str = ""
    canonical: str | None = None
    entry: str = ""
    stops: tuple[str, ...] = ()

    def program(self, completion: str) -> str:
        """What is run to judge a completion."""
        return f"{self.head}{completion}{self.suffix}\n{self.test}"


@dataclass(frozen=True)
class Benchmark:
    """Problems with their provenance.

    form    which of the known forms the data had
    source  file name, or "hub:REPOSITORY/FILE@REVISION"
    digest  sha256-<hex> over all rows of the data as canonical JSON: the same for a
            file, its compressed form and a table of the same rows
    rows    how many there are, in all languages
    """

    form: str
    source: str
    digest: str
    rows: int
    problems: tuple[Problem, ...]

    def first(self, limit: int | None) -> Benchmark:
        """The first `limit` problems; all for None."""
        return replace(self, problems=self.problems[:limit])
