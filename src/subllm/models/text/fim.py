"""Fill-in-the-middle prompts from a family's markers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from subllm.models.catalog.prompt import FimSpec
from subllm.models.text.tokenizer import Tokenizer

_LONGEST_MARKER = 64  # characters that a special token has at most

AHEAD = 16
"""Lines before the cursor that are read again when so many more were written."""

# What pre-tokenizers of GPT-2's kind may join: letters with one sign or space before them, signs
# with one space, spaces. At most so many of each: a long line of signs would be drawn token by
# token.
_LAST_WORD = re.compile(r"(?:(?:[^\n\w]|_)?[^\W_]{1,24}|[^\S\n]{1,64}| ?[^\s\w]{1,8}|_{1,8}|)\Z")


def render(
    spec: FimSpec,
    prefix: str,
    suffix: str,
    *,
    path: str | None = None,
    repo: str | None = None,
    extra: Sequence[tuple[str, str]] = (),
) -> str:
    """The prompt after which the model writes what belongs between prefix and suffix.

    path   of the file being edited; put in only with other files, the form in which
           models saw paths in training
    repo   name of the repository
    extra  other files as (path, text), the most relevant last

    A part that the family has no marker for is left out. The text of prefix, suffix and
    extra is inserted as it is: `encode` where it is not trusted.
    """
    return "".join(text for text, _ in pieces(spec, prefix, suffix, path, repo, extra))


def encode(
    spec: FimSpec,
    tokenizer: Tokenizer,
    prefix: str,
    suffix: str,
    *,
    path: str | None = None,
    extra: Sequence[tuple[str, str]] = (),
) -> tuple[int, ...]:
    """The prompt's token ids, bos first where the model starts its texts with one. Only the
    markers are special tokens: a file may spell one in its text. `path` and `extra` as for
    `render`.

    Where SentencePiece puts a space before a text, it does so before the one that begins the
    file, and no other: models were trained so (Code Llama, section 2.3).
    """
    ids: list[int] = []
    begins = False
    for text, marker in pieces(spec, prefix, suffix, path, None, extra):
        if marker:
            ids += tokenizer.encode(text, bos=False)
            begins = text == spec.prefix
        else:
            ids += tokenizer.encode_plain(text, goes_on=not begins)
    bos = tokenizer.bos_id
    return (bos, *ids) if tokenizer.adds_bos and bos is not None else tuple(ids)


def at_cursor(
    spec: FimSpec,
    tokenizer: Tokenizer,
    before: str,
    after: str,
    *,
    path: str | None = None,
    extra: Sequence[tuple[str, str]] = (),
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """As `encode`, laid out for somebody who types, and the tokens of its end, which the completion
    has to begin with (`Request.begun`).

    The last lines before the cursor stand behind the middle's marker, as the first that were
    written into the hole: typing then adds to the end of the prompt, and what was read before stays
    as it is, the text after the cursor too. How many they are moves on every `AHEAD` lines. The
    word at the cursor is left out and begins the completion: half of one is no token that a model
    knows at this place.
    """
    keep = _settled_lines(before) if spec.order == "psm" and after.strip() else len(before)
    written, word = split_word(before[keep:])
    begun = tokenizer.encode_plain(word, goes_on=True)
    if not _says(tokenizer, begun, word):
        written, begun = written + word, []
    ids = encode(spec, tokenizer, before[:keep], after, path=path, extra=extra)
    return (*ids, *tokenizer.encode_plain(written, goes_on=True)), tuple(begun)


def sides(spec: FimSpec, tokenizer: Tokenizer, prompt: str) -> tuple[str, str] | None:
    """The text before and after the cursor of a prompt that is no more than these between the
    family's markers; None for any other."""
    first, between, last = spec.prefix, spec.suffix, spec.middle
    if spec.order != "psm" or not (prompt.startswith(first) and prompt.endswith(last)):
        return None
    before, found, after = prompt[len(first) : -len(last)].partition(between)
    if not found or any(tokenizer.cut(text, "\0") != text for text in (before, after)):
        return None
    return before, after


def encode_begun(tokenizer: Tokenizer, text: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids of a prompt that is gone on with, special tokens recognised, without its last word,
    and those of that word, which the completion has to begin with, as in `at_cursor`."""
    written, word = split_word(text)
    begun = tokenizer.encode_plain(word, goes_on=True)
    near = max(0, len(written) - _LONGEST_MARKER)
    cut = _special(tokenizer, written[near:]) < _special(tokenizer, text[near:])
    ids = tokenizer.encode(written) if word and not cut else []
    if not ids or not _says(tokenizer, begun, word):
        return tuple(tokenizer.encode(text)), ()
    return tuple(ids), tuple(begun)


def _special(tokenizer: Tokenizer, text: str) -> int:
    """How many special tokens it spells."""
    return sum(token in tokenizer.coder.added_ids for token in tokenizer.encode(text, bos=False))


def _says(tokenizer: Tokenizer, ids: Sequence[int], text: str) -> bool:
    return b"".join(map(tokenizer.token_bytes, ids)) == text.encode("utf-8", "replace")


def split_word(text: str) -> tuple[str, str]:
    """The text up to where its last word, its last signs or spaces may begin a token, and the rest
    of its last line."""
    match = _LAST_WORD.search(text)
    assert match is not None
    return text[: match.start()], match[0]


def _settled_lines(before: str) -> int:
    """Where the lines begin that go behind the marker."""
    end = 0
    for _ in range(before.count("\n") // AHEAD * AHEAD):
        end = before.index("\n", end) + 1
    return end


def pieces(
    spec: FimSpec,
    prefix: str,
    suffix: str,
    path: str | None = None,
    repo: str | None = None,
    extra: Sequence[tuple[str, str]] = (),
) -> list[tuple[str, bool]]:
    """The prompt as (text, is_marker), so that only markers are read as special tokens."""
    parts: list[tuple[str, bool]] = []
    if extra and spec.file_separator is not None:
        if repo is not None and spec.repo_name is not None:
            parts += [(spec.repo_name, True), (f"{repo}\n", False)]
        for name, text in extra:
            ending = "" if text.endswith("\n") else "\n"
            parts += [(spec.file_separator, True), (f"{name}\n{text}{ending}", False)]
        if path is not None:
            parts += [(spec.file_separator, True), (f"{path}\n", False)]
    if spec.order == "psm":
        parts += [(spec.prefix, True), (prefix, False), (spec.suffix, True), (suffix, False)]
    else:
        parts += [(spec.suffix, True), (suffix, False), (spec.prefix, True), (prefix, False)]
    parts.append((spec.middle, True))
    return [(text, marker) for text, marker in parts if text]
