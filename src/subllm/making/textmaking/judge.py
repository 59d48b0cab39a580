"""From an answer to a sample: what of it is kept, and whether it is fit to learn from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from subllm.making.textmaking import filters
from subllm.making.textmaking.ending import function_end
from subllm.making.textmaking.known import KnownText
from subllm.making.textmaking.parse import Code, parse
from subllm.making.textmaking.privacy import private
from subllm.making.textmaking.raw_answers import RawAnswer
from subllm.making.textmaking.tasks import Form, Task
from subllm.making.textmaking.whole import whole_part

_BLOCK = re.compile(r"^```([^\n`]*)\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)
_UNWRITTEN = re.compile(r"\b(TODO|pass)\b")


@dataclass(frozen=True)
class Sample:
    """One accepted text: the answer, with what it goes on from; of a hole it is the middle,
    between `prefix` and `suffix`. Prose has no tag. tokens: that the base wrote."""

    id: str
    form: Form
    tag: str
    text: str
    tokens: int
    instruction: str = ""
    prefix: str = ""
    suffix: str = ""

    def row(self) -> dict[str, Any]:
        """As a row of JSON lines that `--calibration` takes; see calibration.rows."""
        fence = {"fence": self.tag} if self.tag else {}
        if self.form == "fim":
            hole = {"prefix": self.prefix, "middle": self.text, "suffix": self.suffix}
            return {"id": self.id, **hole, **fence}
        if self.instruction:
            asked = {"instruction": self.instruction, "output": self.text}
            return {"id": self.id, **asked, **fence}
        return {"id": self.id, "text": self.text, **fence}


class Judge:
    """Keeps what it accepted, so that nothing comes twice. Not thread-safe."""

    def __init__(self, known: KnownText) -> None:
        """known: what nothing may have text in common with."""
        self._known = known
        self._seen = filters.Seen()

    def know(self, text: str, name: str = "") -> None:
        """Reject what is nearly this text, which is there already; but not what is made from
        `name`."""
        self._seen.add(text, name)

    def judge(self, answer: RawAnswer) -> Sample | str:
        """The sample, or why there is none. Cheap checks come first."""
        task = answer.task
        text, reason = kept(task, answer.text.replace("\r\n", "\n"), answer.ended)
        reason = reason or self._unfit(task, text) or _malformed(task, text)
        if reason is not None:
            return reason
        hole = task.answer == "hole"
        if not hole:
            self._seen.add(text, task.id)
        return Sample(
            task.id, task.form, "" if task.answer in ("talk", "prose") else task.tag, text,
            answer.tokens, task.instruction,
            task.prefix if hole else "", task.suffix if hole else "",
        )  # fmt: skip

    def _unfit(self, task: Task, text: str) -> str | None:
        if task.answer in ("talk", "prose"):
            reason = filters.poor_prose(text)
        elif task.answer in ("hole", "body"):
            reason = filters.placeholder(text)
        else:
            reason = filters.hollow_code(text)
        if task.form == "edit" and _same(text, task.instruction):
            reason = "unchanged"
        whole = f"{task.prefix}{text}{task.suffix}" if task.answer == "hole" else text
        # The user's own code may name people and be in any script.
        written = text.removeprefix(task.prefix)
        for check, what in (
            (filters.foreign_letters, written),
            (filters.repetitive, text),
            (private, written),
        ):
            reason = reason or check(what)
        reason = reason or self._known.overlaps(whole)
        if task.answer != "hole":
            reason = reason or self._seen.near_duplicate(text, apart=task.parent)
        return reason


def kept(task: Task, text: str, ended: bool) -> tuple[str, str | None]:
    """The part of an answer that is used, and why there is none."""
    if task.answer == "rest":
        if "```" in text:
            return "", "fence in code"
        text = task.prefix + text
        whole = text.rstrip() + "\n" if ended else whole_part(text, task.tag)
        return whole, "cut" if len(whole) <= len(task.prefix) else None
    if task.answer == "body":
        return _function(task, text, ended)
    if task.answer == "hole":
        # Who goes on and on has still written the line that an editor would show.
        text = text if ended else _first_line(text, task.suffix)
        if task.suffix.startswith("\n"):
            text = text.rstrip("\n")
        return text, None if text.strip() else "hollow"
    if not ended:
        return "", "cut"
    text = text.strip() + "\n"
    if task.answer in ("talk", "prose"):
        lacks = task.answer == "talk" and not _blocks(text)
        return text, "no code block" if lacks else None
    return filters.code_block(text, task.tag)


def _function(task: Task, text: str, ended: bool) -> tuple[str, str | None]:
    whole = task.prefix + text
    if task.tag == "python":
        return whole.rstrip() + "\n", None if ended else "cut"
    end = function_end(whole, task.tag, task.outer)
    if end is not None:
        return whole[:end].rstrip() + "\n" + "}\n" * task.outer, None
    # One without braces of its own (an arrow function in one line) may have ended as well.
    return whole.rstrip() + "\n", None if ended and not task.outer else "cut"


def _first_line(text: str, suffix: str) -> str:
    start = len(text) - len(text.lstrip("\n"))
    end = text.find("\n", start)
    return text[: end + (not suffix.startswith("\n"))] if end >= 0 else ""


def _malformed(task: Task, text: str) -> str | None:
    """Why a parser would not have it."""
    if task.answer == "prose":
        return None
    if task.answer == "talk":
        blocks = [code for tag, code in _blocks(text) if _is(tag, task.tag)]
        whole = bool(blocks) and all(parse(code, task.tag) for code in blocks)
        return None if whole else "does not parse"
    code = text
    if task.answer == "hole":
        code = f"{task.before}{task.prefix}{text}{task.suffix}{task.after}"
    seen = parse(code, task.tag)
    if seen is None:
        return "does not parse"
    return _no_function(seen, text) if task.answer == "body" else None


def _no_function(seen: Code, text: str) -> str | None:
    if seen.functions != 1:
        return "no function"
    return "placeholder" if _UNWRITTEN.search(text) else None


def _blocks(text: str) -> list[tuple[str, str]]:
    return [(match[1].strip().lower(), match[2]) for match in _BLOCK.finditer(text)]


def _is(named: str, tag: str) -> bool:
    return named in filters.FENCE_TAGS.get(tag, {tag})


def _same(text: str, source: str) -> bool:
    """Whether the source has it already, but for white space."""
    return "".join(text.split()) in "".join(source.split())
