"""Which answers are unfit whatever their language says: cut, hollow, repetitive, copied.

Every check takes a text and returns the reason for rejecting it, or None.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter

from subllm.making.textmaking.words import grams, words_of

FENCE_TAGS = {
    "python": {"python", "py", "python3"},
    "javascript": {"javascript", "js", "mjs", "node"},
    "cpp": {"cpp", "c++", "cxx", "cc"},
    "bash": {"bash", "sh", "shell"},
    "csharp": {"csharp", "cs", "c#"},
    "yaml": {"yaml", "yml"},
    "rust": {"rust", "rs"},
    "go": {"go", "golang"},
    "typescript": {"typescript", "ts"},
}
MIN_CODE_LINES, MIN_WORDS = 6, 60
LOOSEST_ZLIB_RATIO = 0.17  # ordinary code and prose stay above it
MOST_REPEATS = 6  # of one long line
NEAR_DUPLICATE = 0.5  # Jaccard similarity of word 5-grams
MIN_ENGLISH = 0.18  # share of the words below; ordinary prose has 0.3 to 0.5

_COMMON_WORDS = (
    "a an and are as at be but by can for from has have how i if in into is it its more not "
    "of on or such that the their them then there these they this to was we what when which "
    "will with you your"
)
_COMMON = frozenset(_COMMON_WORDS.split())
_FENCE_LINE = re.compile(r"^[ \t]*```(.*)$", re.MULTILINE)
_PLACEHOLDER = re.compile(
    r"your (own )?(code|logic|implementation) here|goes here|\bTODO\b|\bFIXME\b|to be implemented|"
    r"implement(ation)? (this|the|your|your own)? ?(logic|method|function)? ?here|"
    r"\bimplement (the |your |actual |some )*logic|rest of the (code|file|methods)|"
    r"not implemented yet|omitted for brevity|(//|#|--)[^\n]*\bplaceholder",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"as an (ai|artificial)\b|language model|alibaba|i'm sorry|i am sorry, but|"
    r"i (can't|cannot|am unable to) (assist|help|provide|answer)",
    re.IGNORECASE,
)


def code_block(text: str, tag: str) -> tuple[str, str | None]:
    """The answer's only code block, and why it is unfit, if it is."""
    fences = list(_FENCE_LINE.finditer(text))
    if len(fences) != 2 or fences[1].group(1).strip():
        return "", "no code block" if len(fences) < 2 else "several code blocks"
    named = fences[0].group(1).strip().lower()
    if named and named not in FENCE_TAGS.get(tag, {tag}):
        return "", "another language"
    code = text[fences[0].end() + 1 : fences[1].start()].rstrip() + "\n"
    return code, None


def hollow_code(code: str) -> str | None:
    lines = [line for line in code.splitlines() if line.strip()]
    if len(lines) < MIN_CODE_LINES:
        return "too short"
    return placeholder(code)


def placeholder(code: str) -> str | None:
    return "placeholder" if _PLACEHOLDER.search(code) else None


def poor_prose(text: str) -> str | None:
    words = [word.lower() for word in re.findall(r"[A-Za-z']+", text)]
    if len(words) < MIN_WORDS:
        return "too short"
    if len(_FENCE_LINE.findall(text)) % 2 or text.rstrip()[-1] in ",:;-(":
        return "truncated"
    if _REFUSAL.search(text):
        return "refusal"
    if sum(word in _COMMON for word in words) / len(words) < MIN_ENGLISH:
        return "not English"
    return None


def foreign_letters(text: str) -> str | None:
    """Letters outside ASCII are no English, be it in prose or comments."""
    letters = [c for c in text if c.isalpha()]
    foreign = sum(not c.isascii() for c in letters)
    return "not English" if foreign > max(2, 0.01 * len(letters)) else None


def repetitive(text: str) -> str | None:
    raw = text.encode()
    if len(raw) >= 400 and len(zlib.compress(raw, 9)) / len(raw) < LOOSEST_ZLIB_RATIO:
        return "repetitive"
    lines = [line.strip() for line in text.splitlines() if len(line.strip()) > 12]
    counts = Counter(lines)
    if not counts:
        return None
    repeated = sum(count - 1 for count in counts.values())
    if max(counts.values()) >= MOST_REPEATS or repeated > 0.4 * len(lines):
        return "repetitive"
    return None


class Seen:
    """Texts accepted so far, to reject those that are nearly one of them."""

    def __init__(self) -> None:
        self._sizes: list[int] = []
        self._names: list[str] = []
        self._with: dict[tuple[str, ...], list[int]] = {}

    def near_duplicate(self, text: str, apart: str = "") -> str | None:
        """`apart` names a text that this one may resemble."""
        mine = grams(words_of(text), 5)
        shared = Counter(index for gram in mine for index in self._with.get(gram, ()))
        for index, count in shared.items():
            union = len(mine) + self._sizes[index] - count
            if count > NEAR_DUPLICATE * union and not (apart and self._names[index] == apart):
                return "near duplicate"
        return None

    def add(self, text: str, name: str = "") -> None:
        mine = grams(words_of(text), 5)
        for gram in mine:
            self._with.setdefault(gram, []).append(len(self._sizes))
        self._sizes.append(len(mine))
        self._names.append(name)
