"""METEOR: how near a translation is to a reference, by nltk.

Words are matched exactly, then by stem, then as synonyms (nltk looks the stems up, so a word
that differs from its stem has none). Synonyms need WordNet, which nltk keeps as a download of
its own; without it the first two stages count alone, the scores are a
little lower, and `Meteor.label` says so wherever they are shown.

Nothing is fetched here, the tokenizer's data neither: sentences are split at `.`, `!` and
`?`, words as in the Penn Treebank.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from subllm.errors import MissingExtraError

FULL = "METEOR"
WITHOUT_SYNONYMS = "METEOR (exact + stem)"
NOTE = (
    "METEOR without synonyms, because nltk has no WordNet here; to count them, run "
    "'python -m nltk.downloader wordnet' and evaluate again"
)

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class Meteor:
    """label  FULL or WITHOUT_SYNONYMS"""

    label: str
    _score: Any
    _split: Any
    _synonyms: Any

    def score(self, reference: str, hypothesis: str) -> float:
        """0 to 1, with nltk's parameters (alpha 0.9, beta 3, gamma 0.5); case is ignored."""
        return float(
            self._score(self.words(reference), self.words(hypothesis), wordnet=self._synonyms)
        )

    def best(self, reference: str, hypotheses: Sequence[str]) -> float:
        """The highest score among `hypotheses`, of which there is at least one."""
        return max(self.score(reference, hypothesis) for hypothesis in hypotheses)

    def words(self, text: str) -> list[str]:
        """The words and marks of a text."""
        sentences = _SENTENCE_END.split(text.strip())
        return [word for sentence in sentences for word in self._split(sentence)]


def load_meteor() -> Meteor:
    """Raises MissingExtraError without nltk. Takes a few seconds."""
    try:
        scoring = importlib.import_module("nltk.translate.meteor_score")
        tokenize = importlib.import_module("nltk.tokenize")
    except ImportError as error:
        raise MissingExtraError(
            f"METEOR needs nltk ({error}); install it with: pip install 'subllm[eval]'"
        ) from error
    synonyms = _wordnet()
    return Meteor(
        label=WITHOUT_SYNONYMS if synonyms is None else FULL,
        _score=scoring.single_meteor_score,
        _split=tokenize.NLTKWordTokenizer().tokenize,
        _synonyms=_NoSynonyms() if synonyms is None else synonyms,
    )


class _NoSynonyms:
    """Stands where nltk asks WordNet."""

    def synsets(self, word: str) -> list[Any]:
        return []


def _wordnet() -> Any:
    """nltk's WordNet, loaded; None where its files are not there."""
    wordnet = importlib.import_module("nltk.corpus").wordnet
    try:
        wordnet.ensure_loaded()
    except LookupError:
        return None
    return wordnet
