"""From options to a file of text to learn from: opens the model, lets it write, keeps what is fit.

Of every text three files lie side by side: NAME.jsonl, one row a text; NAME.answers.xz, all that
the model wrote, from which the first follows; and NAME.made.json, counts. Both are written anew at
the end of every run.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from subllm.engine.computing import Computing
from subllm.engine.limits import EngineLimits
from subllm.engine.loader import load_engine
from subllm.engine.request import Engine
from subllm.errors import EngineError, UsageError
from subllm.files import write_whole
from subllm.making.calibration.packs import DATA, ProseSample, pack_names, read_pack
from subllm.making.textmaking.benchmark_files import problem_files, read_problems
from subllm.making.textmaking.judge import Judge
from subllm.making.textmaking.known import KnownText, shipped
from subllm.making.textmaking.made import Made, answers_path, made_path
from subllm.making.textmaking.maker import Maker, Wanted
from subllm.making.textmaking.own_code import code_tasks
from subllm.making.textmaking.raw_answers import RawAnswers
from subllm.making.textmaking.tasks import FORMS, LANGUAGES, Form, roots
from subllm.making.textmaking.writer import Asker, Draws, write
from subllm.models.store.files import disk_errors
from subllm.models.store.store import Store
from subllm.models.store.tokenizers import open_tokenizer
from subllm.progress import Progress, bar

TOGETHER = 48
_ROOM = 768  # tokens of KV memory for a task and its answer, on an average
_HOPELESS = 400  # texts in a row that are unfit
_FIRST = 5.0  # seconds before a rate says when it will end


@dataclass(frozen=True)
class MakeOptions:
    """language: one of LANGUAGES. tokens: accepted ones that the file is to have; seconds: how
    long this run may write; whichever comes first. seeds: a directory of the user's code.
    problems: texts of the problems that models are measured on, and benchmarks: files of more,
    which nothing that is made comes near to."""

    language: str
    out: Path
    problems: Sequence[str]
    tokens: int | None = None
    seconds: float | None = None
    forms: tuple[Form, ...] = FORMS
    seeds: Path | None = None
    benchmarks: tuple[Path, ...] = ()
    seed: int = 0
    together: int = TOGETHER


def make(
    store: Store, model: str, options: MakeOptions, threads: int | None, progress: Progress
) -> Made:
    """Let `model` of the store write until there is enough. Ctrl-C ends it with what there is.

    Raises UsageError, CalibrationError (seeds), TableError (benchmarks, a file that holds
    something else), UnknownNameError, LockedError, StoreError, EngineError.
    """
    check(options)
    manifest = store.model(model)
    asker = Asker(open_tokenizer(store, manifest), manifest.prompt, Draws(seed=options.seed))
    lacks = {form: asker.cannot[form] for form in options.forms if form in asker.cannot}
    forms = tuple(form for form in options.forms if form not in lacks)
    for form, what in lacks.items():
        progress.note(f"{model} has no {what}: nothing in the format {form}")
    if not forms:
        raise UsageError(f"{model} can write none of these formats; choose others, or --model")
    known = known_text(options.problems, options.benchmarks)
    by = f"{manifest.name}, {manifest.values} weights, {manifest.head} head"
    with (
        store.lock(f"data-{options.out.stem}", on_wait=progress.note),
        RawAnswers(answers_path(options.out)) as answers,
    ):
        maker = _maker(answers, options, forms, known, progress)
        before, began, interrupted = maker.written, time.monotonic(), False
        if _reached(maker, options):
            return _finish(maker, options, by)
        engine = load_engine(
            store,
            model,
            computing=Computing(threads=threads),
            limits=EngineLimits(
                max_batch=options.together,
                queue_limit=2 * options.together,
                kv_tokens=_ROOM * options.together,
            ),
            context_length=asker.context,
        )
        try:
            began = time.monotonic()
            _run(maker, engine, asker, by, options, began, progress)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            engine.close()
            answers.flush()
        return _finish(
            maker, options, by, maker.written - before, time.monotonic() - began, interrupted
        )


def check(options: MakeOptions) -> None:
    """Raises UsageError, before anything is opened."""
    if options.language not in LANGUAGES:
        raise UsageError(
            f"text is made in {', '.join(LANGUAGES)}, not in {options.language!r}; for another "
            "language give its code to --calibration or 'subllm tune'"
        )
    if options.tokens is None and options.seconds is None:
        raise UsageError("say --tokens or --for, or there is no end")
    if options.out.suffix != ".jsonl":
        raise UsageError(f"{options.out} does not end in .jsonl, by which it is known as rows")
    if options.out.exists() and not answers_path(options.out).exists():
        raise UsageError(
            f"{options.out} is there already and was not made here; give another --out"
        )
    if options.seeds is not None and not options.seeds.is_dir():
        raise UsageError(f"--seeds {options.seeds} is no directory")


def known_text(problems: Iterable[str], benchmarks: Collection[Path] = ()) -> KnownText:
    """What nothing made may share ten words with: known benchmarks, `problems`, and those in
    files. Raises UsageError, TableError."""
    known = shipped()
    known.add(problems)
    try:
        for path in problem_files(benchmarks):
            known.add(text for problem in read_problems(path) for text in problem.texts)
    except FileNotFoundError as error:
        raise UsageError(f"--benchmarks: {error}") from error
    return known


def _maker(
    answers: RawAnswers,
    options: MakeOptions,
    forms: tuple[Form, ...],
    known: KnownText,
    progress: Progress,
) -> Maker:
    wanted = Wanted(forms, roots(options.language, forms, options.seed))
    if options.seeds is not None:
        own = code_tasks(options.seeds, options.language, forms, options.seed)
        wanted = Wanted(forms, wanted.roots, own)
    with bar(progress, "judge", "reading what was written", len(answers), "items"):
        return Maker(
            answers, _judge(options.language, known), wanted, lambda: progress.advance("judge")
        )


def _judge(language: str, known: KnownText) -> Judge:
    """One that takes nothing like the held-out text of the language's pack."""
    judge = Judge(known)
    if language in pack_names():
        for sample in read_pack(DATA / f"{language}.jsonl.xz").samples:
            if sample.split == "heldout":
                judge.know(sample.text if isinstance(sample, ProseSample) else sample.code)
    return judge


def _reached(maker: Maker, options: MakeOptions) -> bool:
    return options.tokens is not None and maker.tokens.total() >= options.tokens


def _run(
    maker: Maker,
    engine: Engine,
    asker: Asker,
    by: str,
    options: MakeOptions,
    began: float,
    progress: Progress,
) -> None:
    def enough() -> bool:
        late = options.seconds is not None and time.monotonic() - began >= options.seconds
        return late or _reached(maker, options)

    kept = maker.tokens.total()
    total = None if options.tokens is None else options.tokens - kept
    done, revised, unfit = 0, 0.0, 0
    with bar(progress, "make", f"writing {options.language}", total, "tokens"):
        for _, fit in write(engine, asker, maker, by, together=options.together, enough=enough):
            unfit = 0 if fit else unfit + 1
            if unfit == _HOPELESS:
                why = ", ".join(reason for reason, _ in maker.rejected.most_common(3))
                raise EngineError(
                    f"none of the last {unfit} texts is fit to learn from ({why}); choose another "
                    "--model or other --formats"
                )
            progress.advance("make", maker.tokens.total() - kept - done)
            done = maker.tokens.total() - kept
            spent = time.monotonic() - began
            if options.seconds is not None and spent > max(_FIRST, revised * 1.2):
                revised = spent
                likely = done * options.seconds / spent
                progress.revise("make", f"writing {options.language}", min(likely, total or likely))
    if not enough():
        progress.note("there are no more tasks of these formats; another --seed has others")


def _finish(
    maker: Maker,
    options: MakeOptions,
    by: str,
    added: int = 0,
    seconds: float = 0.0,
    interrupted: bool = False,
) -> Made:
    rows = "".join(json.dumps(s.row(), ensure_ascii=False) + "\n" for s in maker.samples)
    made = Made(
        path=options.out,
        language=options.language,
        by=by,
        texts=dict(Counter(str(sample.form) for sample in maker.samples)),
        tokens={str(form): count for form, count in maker.tokens.items()},
        rejected=dict(maker.rejected),
        answers=maker.answered,
        written=maker.written,
        added=added,
        seconds=seconds,
        interrupted=interrupted,
    )
    with disk_errors(options.out):
        write_whole(options.out, rows.encode("utf-8", "replace"))
        write_whole(made_path(options.out), made.record())
    return made
