"""From raw answers to packs: check, filter, count, write.

A pack is xz-compressed JSON lines: a header {"pack", "version", "provenance"}, then one
sample a line, sorted by id. The same answers and tools give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import lzma
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from checkers import Checker
from tasks import Task, tasks

from subllm.making.textmaking import filters
from subllm.making.textmaking.benchmark_files import read_problems
from subllm.making.textmaking.known import KnownText
from subllm.making.textmaking.privacy import private

PACK_VERSION = 1
XZ = {"format": lzma.FORMAT_XZ, "check": lzma.CHECK_CRC64, "preset": 9}


class Verdicts:
    """What checkers said, kept in a file, for compilers are slow and packs are remade."""

    def __init__(self, path: Path, checkers: dict[str, Checker]) -> None:
        self._path = path
        self._checkers = checkers
        self._known: dict[str, bool] = json.loads(path.read_text()) if path.exists() else {}
        self.versions: dict[str, str] = {}

    def accepts(self, tag: str, code: str) -> bool:
        """Raises LookupError when the tool is missing or none is known for the tag."""
        if tag not in self.versions:
            if tag not in self._checkers:
                raise LookupError(f"no checker for {tag}")
            self.versions[tag] = self._checkers[tag].version()
        key = hashlib.sha256(f"{self.versions[tag]}\0{tag}\0{code}".encode()).hexdigest()
        if key not in self._known:
            self._known[key] = self._checkers[tag].accepts(code)
        return self._known[key]

    def save(self) -> None:
        self._path.write_text(json.dumps(self._known, sort_keys=True))


@dataclass
class Pack:
    """Samples of one language; `tokens` by split, `engines`: samples by what ran the base."""

    language: str
    samples: list[dict] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    engines: Counter[str] = field(default_factory=Counter)
    generated: int = 0
    checkers: list[str] = field(default_factory=list)


def build(
    language: str,
    answers: dict[str, dict],
    verdicts: Verdicts,
    benchmark: KnownText,
    count: Callable[[str], int],
    *,
    asked: int,
    seed: int,
) -> Pack:
    """The pack of those of the first `asked` tasks that are answered. `count` gives a
    text's tokens.

    Held-out answers come first, so that of near duplicates across the splits the one in
    the training split goes.
    """
    pack, seen = Pack(language), filters.Seen()
    known = [task for task in tasks(language, asked, seed) if task.id in answers]
    for task in sorted(known, key=lambda task: task.split != "heldout"):
        pack.generated += 1
        text, reason = _judge(task, answers[task.id], verdicts, benchmark, seen)
        if reason is not None:
            pack.rejected[reason] += 1
            continue
        seen.add(text)
        pack.tokens[task.split] += count(text)
        pack.engines[answers[task.id].get("by", "not recorded")] += 1
        sample = {"id": task.id, "split": task.split, "instruction": task.instruction}
        if task.answer == "code":
            sample |= {"answer": "code", "tag": task.tag, "code": text}
        else:
            sample |= {"answer": "prose", "text": text}
        pack.samples.append(sample)
    pack.samples.sort(key=lambda sample: sample["id"])
    tags = {task.tag for task in known if task.answer == "code"}
    pack.checkers = sorted({verdicts.versions[tag] for tag in tags & set(verdicts.versions)})
    return pack


def _judge(
    task: Task,
    answer: dict,
    verdicts: Verdicts,
    benchmark: KnownText,
    seen: filters.Seen,
) -> tuple[str, str | None]:
    """The sample's text and why it is rejected, if it is. Cheap checks come first."""
    text = answer["text"].replace("\r\n", "\n").strip() + "\n"
    if not answer["ended"]:
        return text, "cut"
    if task.answer == "code":
        text, reason = filters.code_block(text, task.tag)
        reason = reason or filters.hollow_code(text)
    else:
        reason = filters.poor_prose(text)
    for check in (
        filters.foreign_letters,
        filters.repetitive,
        private,
        benchmark.overlaps,
        seen.near_duplicate,
    ):
        reason = reason or check(text)
    if reason is None and task.answer == "code" and not verdicts.accepts(task.tag, text):
        reason = "does not compile" if task.tag in ("python", "cpp", "java", "c") else "no parse"
    return text, reason


def header(pack: Pack, provenance: dict, benchmarks: list[str]) -> dict:
    """The first line of a pack. `provenance` is the run's part; `benchmarks` names the
    files that answers were compared with."""
    compared: object = "not checked"
    if benchmarks:
        compared = {
            "compared": benchmarks,
            "rule": f"no shared {KnownText.N}-gram of words",
            "rejected": pack.rejected["benchmark overlap"],
        }
    return {
        "pack": pack.language,
        "version": PACK_VERSION,
        "provenance": {
            **provenance,
            "tasks": provenance["tasks"][pack.language],
            "generated": pack.generated,
            "accepted": len(pack.samples),
            "rejected": dict(sorted(pack.rejected.items())),
            "engines": dict(sorted(pack.engines.items())),
            "checker": "; ".join(pack.checkers),
            "tokens": {split: pack.tokens[split] for split in ("train", "heldout")},
            "benchmark overlap": compared,
            "command": "scripts/make-packs assemble",
        },
    }


def write(path: Path, first: dict, samples: Iterable[dict]) -> int:
    """Writes a pack and returns its size in bytes."""
    lines = [json.dumps(line, ensure_ascii=False) + "\n" for line in (first, *samples)]
    data = lzma.compress("".join(lines).encode(), **XZ)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_bytes(data)
    partial.replace(path)
    return len(data)


def read_benchmarks(directory: Path | None) -> tuple[list[str], KnownText]:
    """Names of the .jsonl.gz files of problems there, and the texts in them.

    Raises SystemExit when the directory has none."""
    if directory is None:
        return [], KnownText([])
    paths = sorted(directory.glob("*.jsonl.gz"))
    if not paths:
        raise SystemExit(f"no .jsonl.gz files in {directory}; check --benchmarks")
    problems = [problem for path in paths for problem in read_problems(path)]
    texts = [text for problem in problems for text in problem.texts]
    return [path.name for path in paths], KnownText(texts)
