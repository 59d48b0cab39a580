"""What a dense base is given to write, in every form that is served.

Roots come from combinations of a subject, a kind and a trait, or of a name and a signature.
Further tasks come from code that was accepted, or that the user has: fill a hole in it, change
it, test it.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from subllm.making.calibration.render import split_middle
from subllm.making.textmaking import vocabulary as words
from subllm.making.textmaking.beginnings import beginnings
from subllm.making.textmaking.lead import lead_of
from subllm.making.textmaking.more_subjects import MORE_SUBJECTS
from subllm.making.textmaking.openings import EDITS, FILES, TALKS, TESTS, TITLES
from subllm.making.textmaking.subjects import SUBJECTS, TOPICS
from subllm.models.tables.seeded import key

Form = Literal["file", "function", "fim", "chat", "tests", "edit"]
FORMS: tuple[Form, ...] = ("file", "function", "fim", "chat", "tests", "edit")

# block  the one code block of the answer
# talk   all of it: code with words around
# prose  all of it: words
# rest   it goes on from the prefix to its own end
# body   it goes on from the prefix to the end of the function
# hole   it is between prefix and suffix
Answer = Literal["block", "talk", "prose", "rest", "body", "hole"]
MOST_TOKENS: dict[Answer, int] = {
    "block": 576, "talk": 704, "prose": 448, "rest": 512, "body": 288, "hole": 192,
}  # fmt: skip

GENERAL = "general"
NAMES = {"python": "Python", "java": "Java", "cpp": "C++", "javascript": "JavaScript"}
LANGUAGES = (*NAMES, GENERAL)

HELDOUT_SHARE = 6
"""One subject in so many is what packs are held out by; nothing here is about those."""
_HOLES = 3  # in a piece of the user's code
_SHORT = "Reply with one code block of at most 50 lines and no other text."
_WHOLE = "Reply with one code block that holds the whole changed code and no other text."
_BLOCK = "Reply with one code block and no other text."
_COMPLETE = {
    "cpp": " The file must compile on its own: include every header and define every type.",
    "java": " The file must compile on its own: import every class that it uses.",
}


@dataclass(frozen=True)
class Task:
    """One thing to write.

    id           unique and stable
    tag          of the code that is asked for, "" for prose
    answer       what of an answer is kept; see `Answer`
    instruction  what the answer answers, as it is learned; "" for text that stands alone
    request      the instruction as the base is asked it
    prefix       what the answer goes on with; a part of the text
    suffix       what comes after a hole
    outer        braces that are open around the function that the prefix begins
    before, after  of the file that a hole is in, what the base is not shown
    parent       id of the text that this is made from; it may be like that one
    step         written for the tasks that follow from it alone, not to be learned from
    """

    id: str
    form: Form
    tag: str
    answer: Answer
    instruction: str = ""
    request: str = ""
    prefix: str = ""
    suffix: str = ""
    outer: int = 0
    before: str = ""
    after: str = ""
    parent: str = ""
    step: bool = False


def roots(language: str, forms: Collection[Form], seed: int = 0) -> Iterator[Task]:
    """The tasks that need no text before them, in an order that the seed decides, of each form
    about as many. Forms that do need one get files to be made from, as steps."""
    if language == GENERAL:
        prose = [_prose(seed)] if "chat" in forms else []
        yield from _in_turn([*prose, *(_code(name, forms, seed) for name in NAMES)])
        return
    yield from _code(language, forms, seed)


def _code(language: str, forms: Collection[Form], seed: int) -> Iterator[Task]:
    parts = []
    if "function" in forms:
        parts.append(_functions(language, seed))
    if "chat" in forms:
        parts.append(_chats(language, seed))
    if "file" in forms or not parts:
        parts.append(_files(language, seed, step="file" not in forms))
    return _in_turn(parts)


def _in_turn(parts: list[Iterator[Task]]) -> Iterator[Task]:
    """One of each until all have ended."""
    while parts:
        for part in list(parts):
            task = next(part, None)
            if task is None:
                parts.remove(part)
            else:
                yield task


def _functions(language: str, seed: int) -> Iterator[Task]:
    for one in beginnings(language, seed + 7):
        yield Task(
            f"{language}-{seed}-{one.id}", "function", language, "body",
            prefix=one.text, outer=one.outer,
        )  # fmt: skip


def _files(language: str, seed: int, step: bool) -> Iterator[Task]:
    subjects, openings = _subjects(), FILES[language]
    for number, (subject, title) in enumerate(
        _shuffled(f"{language} begun", seed, len(subjects), len(TITLES))
    ):
        draw = key("file", language, seed, number)
        prefix = openings[draw % len(openings)].format(
            title=TITLES[title], subject=subjects[subject]
        )
        identity = f"{language}-{seed}-file-{number:05d}"
        yield Task(identity, "file", language, "rest", prefix=prefix, step=step)


def _chats(language: str, seed: int) -> Iterator[Task]:
    subjects, kinds, traits = _subjects(), words.KINDS[language], words.TRAITS[language]
    for number, (subject, kind) in enumerate(
        _shuffled(f"{language} asked", seed, len(subjects), len(kinds))
    ):
        draw = key("chat", language, seed, number)
        ask = kinds[kind].format(subject=subjects[subject], language=NAMES[language])
        identity = f"{language}-{seed}-chat-{number:05d}"
        if number % 2:
            asked = TALKS[draw % len(TALKS)].format(ask=ask, language=NAMES[language])
            yield Task(identity, "chat", language, "talk", instruction=asked, request=asked)
            continue
        asked = f"{ask} {traits[draw % len(traits)]}"
        request = f"{asked}{_COMPLETE.get(language, '')}\n{_SHORT}"
        yield Task(identity, "chat", language, "block", instruction=asked, request=request)


def _prose(seed: int) -> Iterator[Task]:
    topics = [topic for index, topic in enumerate(TOPICS) if not _heldout(index)]
    for number, (topic, form) in enumerate(_shuffled("prose", seed, len(topics), len(words.FORMS))):
        asked = words.FORMS[form].format(topic=topics[topic])
        yield Task(
            f"general-{seed}-prose-{number:05d}", "chat", "", "prose",
            instruction=asked, request=f"{asked} Use at most 200 words.",
        )  # fmt: skip


def _heldout(index: int) -> bool:
    return index % HELDOUT_SHARE == HELDOUT_SHARE - 1


def _subjects() -> list[str]:
    known = [subject for index, subject in enumerate(SUBJECTS) if not _heldout(index)]
    return [*known, *MORE_SUBJECTS]


def _shuffled(name: str, seed: int, *sizes: int) -> list[tuple[int, ...]]:
    combinations = itertools.product(*(range(size) for size in sizes))
    return sorted(combinations, key=lambda places: key("tasks", name, seed, *places))


def derived(source: Task, code: str, forms: Collection[Form]) -> list[Task]:
    """What else is asked about `code`, an accepted text of `source` that parses by itself: a hole
    in all, of the rest what a draw says, so that each form gets about as much."""
    if source.answer not in ("block", "rest", "body") or source.parent:
        return []
    draw = key("derived", source.id) % 12
    found = [hole(source, code)] if "fim" in forms and len(code.splitlines()) > 3 else []
    if source.form == "function":  # too short for more
        return found
    if "edit" in forms and ("tests" not in forms or draw % 2):
        found.append(_about(source, code, "edit"))
    if "tests" in forms and ("edit" not in forms or not draw % 2):
        found.append(_about(source, code, "tests"))
    return found


def hole(source: Task, code: str, number: int = 0) -> Task:
    prefix, _, suffix = split_middle(code, key("hole", source.id, number))
    return Task(
        f"{source.id}-fim-{number}", "fim", source.tag, "hole",
        prefix=prefix, suffix=suffix, parent=source.id,
    )  # fmt: skip


def holes(source: Task, code: str) -> list[Task]:
    """Some in one piece of code, where there is more to fill in than one line."""
    count = _HOLES if len(code.splitlines()) > _HOLES else 0
    return [hole(source, code, number) for number in range(count)]


def _about(source: Task, code: str, form: Literal["edit", "tests"]) -> Task:
    draw = key(form, source.id)
    if form == "edit":
        asked, how = EDITS[draw % len(EDITS)], _WHOLE
    else:
        asked, how = TESTS[source.tag].format(module="library"), _BLOCK
    instruction = f"{asked}\n\n```{source.tag}\n{code}```"
    return Task(
        f"{source.id}-{form}", form, source.tag, "block", instruction=instruction,
        request=f"{instruction}\n\n{how}", parent=source.id,
    )  # fmt: skip


def own_tasks(source: Task, code: str, forms: Collection[Form]) -> list[Task]:
    """Tasks about a piece of the user's code, `source` being its name: as `derived`, with more
    holes; and to go on from its first half."""
    found = holes(source, code) if "fim" in forms else []
    found += [task for task in derived(source, code, forms) if task.form != "fim"]
    if "file" in forms:
        lines = code.splitlines(keepends=True)
        prefix = "".join(lines[: len(lines) // 2])
        found.append(
            replace(source, id=f"{source.id}-file", form="file", prefix=prefix, parent=source.id)
        )
    return found


def body_task(source: Task, function: str) -> Task | None:
    """To write one of the functions of `source` anew, after its comment and signature; None for
    one with hardly a body."""
    lead = lead_of(function, source.tag)
    if not lead:
        return None
    identity = f"{source.id}-function-{key(function):016x}"
    return Task(identity, "function", source.tag, "body", prefix=lead, parent=source.id)
