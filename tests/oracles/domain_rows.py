"""Rows in the form that the sets of the domain tasks have on the hub, by task."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


def _choice(field: str, i: int) -> Row:
    letters = ["A", "B", "C", "D"]
    return {
        "id": f"q{i}",
        field: f"What has {i} legs",
        "choices": {
            "text": [f"{w} {i}" for w in ("a hen", "an ox", "a bee", "it")],
            "label": letters,
        },
        "answerKey": letters[i % 4],
    }


def _pair(i: int) -> Row:
    nouns = ["cat", "dog", "hen", "cow", "bee"]
    return {
        "translation": {
            "en": f"The {nouns[i % 5]} sees {i} red hills.",
            "fr": f"Le {nouns[i % 5]} voit {i} collines rouges.",
        }
    }


def _hellaswag(i: int) -> Row:
    return {
        "ind": i,
        "activity_label": "Baking [title]",
        "ctx_a": f"A man has {i} eggs.",
        "ctx_b": "he then",
        "ctx": f"A man has {i} eggs. he then",
        "endings": [f"runs [step] {i} miles.", "sings.", "sleeps a lot.", "breaks them."],
        "label": str(i % 4),
    }


def rows_of(task: str, count: int = 6) -> list[Row]:
    """`count` rows of a task's split."""
    return [_ROWS[task](i) for i in range(count)]


_ROWS: dict[str, Any] = {
    "openbookqa": lambda i: _choice("question_stem", i),
    "arc_easy": lambda i: _choice("question", i),
    "arc_challenge": lambda i: _choice("question", i),
    "winogrande": lambda i: {
        "sentence": f"The {i} cups did not fit the box because _ was too small.",
        "option1": "the box",
        "option2": f"the cup {i}",
        "answer": "12"[i % 2],
    },
    "boolq": lambda i: {
        "passage": f"Water boils at {i} degrees.",
        "question": "does water boil",
        "idx": i,
        "label": i % 2,
    },
    "hellaswag": _hellaswag,
    "gsm8k": lambda i: {
        "question": f"Ann has {i} pens and buys 2. How many has she?",
        "answer": f"She has {i} + 2 = <<{i}+2={i + 2}>>{i + 2}.\n#### {i + 2}",
    },
    "wmt14": _pair,
    "opus_books": lambda i: {"id": str(i), **_pair(i)},
}
