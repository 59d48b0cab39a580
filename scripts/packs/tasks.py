"""Seed tasks: every language's are combinations of a subject, a kind and a trait.

A task's split is part of the task: held-out subjects never occur in the training
split, so that no pair of tasks across the splits differs by its wording alone.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from subllm.making.textmaking import vocabulary as words
from subllm.making.textmaking.subjects import SUBJECTS, TOPICS

HELDOUT_SHARE = 6  # one subject in six is held out
LANGUAGES = ("python", "javascript", "cpp", "java", "general")
# Asked by default: the more, the fewer answers a language's compiler takes.
COUNTS = {"python": 340, "javascript": 310, "cpp": 640, "java": 780, "general": 300}
CODE_NAMES = {"python": "Python", "javascript": "JavaScript", "cpp": "C++", "java": "Java"}

COMPLETE = {
    "cpp": " The file must compile on its own: include every header and define every type.",
    "java": " The file must compile on its own: import every class that it uses.",
}


@dataclass(frozen=True)
class Task:
    """One instruction. `answer` is "code" (one file) or "prose"; `tag` the fence's."""

    id: str
    language: str
    split: str
    instruction: str
    answer: str
    tag: str

    @property
    def request(self) -> str:
        """The instruction as the generator is asked it."""
        if self.answer == "prose":
            return f"{self.instruction} Use at most 200 words."
        complete = COMPLETE.get(self.language, "")
        return (
            f"{self.instruction}{complete}\n"
            "Reply with one code block of at most 50 lines and no other text."
        )


def tasks(language: str, count: int, seed: int = 0) -> list[Task]:
    """The first `count` tasks of a language, in a fixed shuffled order."""
    made = _general(seed) if language == "general" else _code(language, seed)
    return list(itertools.islice(made, count))


def _split(subject_index: int) -> str:
    return "heldout" if subject_index % HELDOUT_SHARE == HELDOUT_SHARE - 1 else "train"


def _shuffled(language: str, seed: int, *sizes: int) -> list[tuple[int, ...]]:
    """Index combinations in an order in which each index comes up evenly."""
    key = [seed, *language.encode()]
    rng = np.random.Generator(np.random.PCG64(key))
    combinations = list(itertools.product(*(range(size) for size in sizes)))
    return [combinations[i] for i in rng.permutation(len(combinations))]


def _code(language: str, seed: int) -> list[Task]:
    name, kinds, traits = CODE_NAMES[language], words.KINDS[language], words.TRAITS[language]
    made, seen = [], set()
    for subject, kind, trait in _shuffled(language, seed, len(SUBJECTS), len(kinds), len(traits)):
        if (subject, kind) in seen:
            continue  # a pair once: another trait alone makes no new program
        seen.add((subject, kind))
        text = kinds[kind].format(subject=SUBJECTS[subject], language=name)
        made.append(
            Task(
                id=f"{language}-{subject:02d}-{kind:02d}-{trait:02d}",
                language=language,
                split=_split(subject),
                instruction=f"{text} {traits[trait]}",
                answer="code",
                tag=language,
            )
        )
    return made


def _general(seed: int) -> list[Task]:
    prose = [
        (
            f"prose-{topic:02d}-{form:02d}",
            topic,
            words.FORMS[form].format(topic=TOPICS[topic]),
            "prose",
            "",
        )
        for topic, form in _shuffled("general", seed, len(TOPICS), len(words.FORMS))
    ]
    code, seen = [], set()
    others = list(words.OTHER_LANGUAGES.items())
    for subject, lang, kind in _shuffled(
        "other", seed, len(SUBJECTS), len(others), len(words.OTHER_KINDS)
    ):
        tag, name = others[lang]
        kind_text = words.OTHER_KINDS[kind]
        if tag in words.SPECIAL_KINDS:
            kind_text = words.SPECIAL_KINDS[tag][kind % len(words.SPECIAL_KINDS[tag])]
        text = kind_text.format(subject=SUBJECTS[subject], language=name)
        if text in seen:
            continue
        seen.add(text)
        code.append((f"code-{subject:02d}-{tag}-{kind:02d}", subject, text, "code", tag))
    # Three prose answers for every piece of code in another language.
    mixed, rest = [], iter(code)
    for number, entry in enumerate(prose):
        mixed.append(entry)
        if number % 3 == 2:
            mixed.append(next(rest))
    return [
        Task(f"general-{key}", "general", _split(index), text, answer, tag)
        for key, index, text, answer, tag in mixed
    ]
