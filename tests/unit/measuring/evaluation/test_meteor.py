"""METEOR against its formula, worked out by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from subllm.errors import MissingExtraError
from subllm.measuring.evaluation.meteor import FULL, WITHOUT_SYNONYMS, load_meteor

METEOR = load_meteor()


def by_hand(matches: int, chunks: int, hypothesis: int, reference: int) -> float:
    """Lavie and Agarwal (2007): weighted harmonic mean times one less the penalty."""
    precision, recall = matches / hypothesis, matches / reference
    mean = precision * recall / (0.9 * precision + 0.1 * recall)
    return mean * (1 - 0.5 * (chunks / matches) ** 3)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "matches", "chunks"),
    [
        ("a b c d", "a b c d", 4, 1),
        ("The Cat sat", "the cat SAT", 3, 1),  # case
        ("the cat sits", "the cats sit", 3, 1),  # stems
        ("a b c d", "c d a b", 4, 2),
        ("a b c d", "a x c", 2, 2),
        ("the cat sat on the mat", "on the mat sat the cat", 6, 6),
        ("a a a", "a", 1, 1),
    ],
)
def test_scores(reference: str, hypothesis: str, matches: int, chunks: int) -> None:
    expected = by_hand(matches, chunks, len(hypothesis.split()), len(reference.split()))
    assert METEOR.score(reference, hypothesis) == pytest.approx(expected)


def test_nothing_in_common_is_nothing() -> None:
    assert METEOR.score("a b", "c d") == 0
    assert METEOR.score("a b", "") == 0
    assert METEOR.score("a b", "  \n") == 0


def test_the_best_of_several_counts() -> None:
    hypotheses = ["x", "a b", "a"]
    assert METEOR.best("a b", hypotheses) == METEOR.score("a b", "a b")


def test_words_and_marks_are_told_apart() -> None:
    """At the end of every sentence, so that "left." and "left" are one word."""
    words = METEOR.words('He left. "Did she?" She didn\'t, Mr. X!')
    assert " ".join(words) == "He left . `` Did she ? '' She did n't , Mr . X !"
    assert METEOR.score("He left. She too.", "He left") > METEOR.score("He left. She", "He leapt")


def wordnet(root: Path) -> Path:
    """nltk's WordNet with one set of synonyms: begin, start, embark."""
    folder = root / "corpora" / "wordnet"
    folder.mkdir(parents=True)
    head = "  1 WordNet 3.0 Copyright 2006 by Princeton University.  \n"
    data = head + f"{len(head):08d} 30 v 03 begin 0 start 0 embark 0 000 00 | to set in motion  \n"
    index = head + "".join(
        f"{word} v 1 0 1 0 {len(head):08d}  \n" for word in ("begin", "embark", "start")
    )
    for part in ("adj", "adv", "noun", "verb"):
        verb = part == "verb"
        (folder / f"data.{part}").write_text(data if verb else head)
        (folder / f"index.{part}").write_text(index if verb else head)
        (folder / f"{part}.exc").write_text("begun begin\n" if verb else "")
    (folder / "lexnames").write_text("".join(f"{i:02d}\tname.{i}\t2\n" for i in range(45)))
    (folder / "index.sense").write_text("")
    (folder / "cntlist.rev").write_text("")
    return root


SCRIPT = """
from subllm.measuring.evaluation.meteor import load_meteor
meteor = load_meteor()
print(meteor.label)
for words in ("they begin", "they embark", "they begun", "they stop"):
    print(meteor.score("they start", words))
"""


@pytest.mark.parametrize("there", [True, False])
def test_synonyms_count_where_wordnet_is_there(there: bool, tmp_path: Path) -> None:
    if there:
        wordnet(tmp_path)
    environment = {"NLTK_DATA": str(tmp_path), "HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
    )
    label, *scores = done.stdout.splitlines()
    whole, half = by_hand(2, 1, 2, 2), by_hand(1, 1, 2, 2)
    assert label == (FULL if there else WITHOUT_SYNONYMS)
    expected = [whole if there else half] * 3 + [half]
    assert [float(score) for score in scores] == pytest.approx(expected)


def test_without_nltk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nltk.translate.meteor_score", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'subllm\[eval\]'"):
        load_meteor()
