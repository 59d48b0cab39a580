"""Fill-in-the-middle prompts from a family's markers."""

from __future__ import annotations

from collections.abc import Sequence

from subllm.catalog.prompt import FimSpec
from subllm.text.tokenizer import Tokenizer


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
