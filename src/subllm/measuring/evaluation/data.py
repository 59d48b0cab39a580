"""Benchmarks by name or file: fetched from the hub where asked for, read, digested."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from subllm.errors import BenchmarkError
from subllm.measuring.evaluation.builtin import BUILTIN, builtin_benchmark
from subllm.measuring.evaluation.forms import FORMS, form_of, problem_of
from subllm.measuring.evaluation.problems import Benchmark, Problem
from subllm.models.tables.digest import RowsDigest
from subllm.models.tables.files import Row, read_rows
from subllm.progress import NullProgress, Progress


@dataclass(frozen=True)
class HubData:
    """Where a benchmark lies on the hub; files by language."""

    repo: str
    revision: str
    files: Mapping[str, str]


NAMED: dict[str, HubData] = {
    "humaneval": HubData(
        "openai/openai_humaneval",
        "7dce6050a7d6d172f3cc5c32aa97f52fa1a2e544",
        {"python": "openai_humaneval/test-00000-of-00001.parquet"},
    ),
    "mbpp": HubData(
        "google-research-datasets/mbpp",
        "4bb6404fdc6cacfda99d4ac4205087b89d32030c",
        {"python": "full/test-00000-of-00001.parquet"},
    ),
    "humaneval-x": HubData(
        "THUDM/humaneval-x",
        "main",
        {
            language: f"data/{folder}/data/humaneval.jsonl"
            for language, folder in (
                ("python", "python"),
                ("java", "java"),
                ("cpp", "cpp"),
                ("javascript", "js"),
            )
        },
    ),
    "infilling": HubData(
        "loubnabnl/humaneval_infilling",
        "refs/convert/parquet",  # the set itself is a script
        {"python": "HumanEval-SingleLineInfilling/test/0000.parquet"},
    ),
}
"""The benchmarks that can be fetched by name."""


def load_benchmark(
    task: str,
    language: str,
    files: Sequence[Path] = (),
    *,
    offline: bool = False,
    progress: Progress | None = None,
) -> tuple[str, Benchmark]:
    """(what the task is called, its problems of `language`).

    task   a form of `forms.FORMS`, BUILTIN, or a file, which then is the data
    files  where the data of a form is; of several, the one that has this language. Without
           them, benchmarks of NAMED are fetched
    Raises as `load_file`, `load_named`.
    """
    if task == BUILTIN:
        if files:
            raise BenchmarkError(f"{BUILTIN} brings its own problems; leave --data out")
        return task, builtin_benchmark(language)
    if task not in FORMS:
        benchmark = load_file(Path(task).expanduser(), language)
        return benchmark.form, benchmark
    if not files:
        return task, load_named(task, language, offline=offline, progress=progress)
    found: list[Benchmark] = []
    without: list[OtherLanguageError] = []
    for path in files:
        try:
            found.append(load_file(path, language))
        except OtherLanguageError as error:
            without.append(error)
    if len(found) > 1:
        raise BenchmarkError(
            f"{found[0].source} and {found[1].source} both have {language} problems; give one"
        )
    if not found:
        raise without[0]
    if found[0].form != task:
        raise BenchmarkError(
            f"{found[0].source} has the form of {found[0].form}; use --task {found[0].form}"
        )
    return task, found[0]


class OtherLanguageError(BenchmarkError):
    """A file has problems, but not in the language that is asked for."""


def load_file(path: Path, language: str) -> Benchmark:
    """The problems of `language` in a .jsonl, .jsonl.gz, .json or .parquet file.

    Raises BenchmarkError, naming the row, for a file that is missing, empty, of an unknown
    form or without problems of this language, TableError for one that cannot be read.
    """
    return _read(path, path.name, path.name, language)


def load_named(
    name: str, language: str, *, offline: bool = False, progress: Progress | None = None
) -> Benchmark:
    """A benchmark of NAMED, fetched into the hub's cache when it is not there.

    Raises BenchmarkError for a name or language that is not there, else AcquireError.
    """
    entry = NAMED.get(name)
    if entry is None:
        known = ", ".join(NAMED)
        raise BenchmarkError(f"{name} cannot be fetched (known: {known}); give --data FILE")
    if language not in entry.files:
        known = ", ".join(entry.files)
        raise BenchmarkError(f"{name} has no {language} problems, only {known}")
    # Imported late: the hub's library takes a while, and a local file needs it not.
    from subllm.models.acquire.datasets import open_dataset

    files = open_dataset(entry.repo, entry.revision, progress or NullProgress(), offline=offline)
    file = entry.files[language]
    if file not in files.names:
        raise BenchmarkError(f"{entry.repo} has no file {file} any more; give --data FILE")
    source = f"hub:{entry.repo}/{file}@{entry.revision}"
    return _read(files.fetch(file), file, source, language)


def _read(path: Path, name: str, source: str, language: str) -> Benchmark:
    rows = _rows(path, name)
    with _row(source, 1):
        form = form_of(rows[0])
    problems: list[Problem] = []
    others: set[str] = set()
    for number, row in enumerate(rows, 1):
        with _row(source, number):
            problem = problem_of(form, row)
        if problem is None:
            continue
        if problem.language == language:
            problems.append(problem)
        else:
            others.add(problem.language)
    if not problems:
        there = f"only {', '.join(sorted(others))}" if others else "none of the test split"
        raise OtherLanguageError(f"{source} has no {language} problems, {there}; choose --language")
    _check_unique(source, problems)
    digest = RowsDigest(source)
    for row in rows:
        digest.add(row)
    return Benchmark(form, source, str(digest), len(rows), tuple(problems))


def _rows(path: Path, name: str) -> list[Row]:
    if not path.is_file():
        raise BenchmarkError(f"there is no file {path}; correct --data")
    rows = list(read_rows(path, name))
    if not rows:
        raise BenchmarkError(f"{name} has no rows; fetch it again")
    return rows


@contextmanager
def _row(source: str, number: int) -> Iterator[None]:
    """Puts the row's place before an error."""
    try:
        yield
    except BenchmarkError as error:
        raise BenchmarkError(f"{source}, row {number}: {error}") from error


def _check_unique(source: str, problems: Iterable[Problem]) -> None:
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise BenchmarkError(f"{source} has {problem.id} twice; remove one")
        seen.add(problem.id)
