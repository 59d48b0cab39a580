"""What the tests want of a page of Markdown: its code, its links, its prose."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

_FENCE = re.compile(r"^\s*```(\w*)")
_SPAN = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)")
_REFERENCE = re.compile(r"^\[[^\]]+\]:\s*(\S+)")
_HEADING = re.compile(r"^#+\s+(.*)")
_ITEM = re.compile(r"^\s*(?:[-*]|\d+\.)\s+")


@dataclass
class Page:
    """blocks    (language of the fence, "" where it has none; its lines), in order
    spans     code in the middle of a line
    links     targets of links and pictures
    anchors   what a link to a heading says after the #
    sentences of paragraphs and lists; not of headings, tables and code
    """

    blocks: list[tuple[str, list[str]]] = field(default_factory=list)
    spans: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    sentences: list[str] = field(default_factory=list)


def read_page(text: str) -> Page:
    page = Page()
    prose: list[str] = []  # lines outside of code
    fence: list[str] | None = None
    for line in text.splitlines():
        mark = _FENCE.match(line)
        if fence is not None:
            if mark:
                fence = None
            else:
                fence.append(line)
        elif mark:
            fence = []
            page.blocks.append((mark[1], fence))
        else:
            prose.append(line)
    _indented(prose, page)
    page.spans = [" ".join(span.split()) for span in _SPAN.findall("\n".join(prose))]
    bare = [_SPAN.sub("", line) for line in prose]
    joined = "\n".join(bare)
    page.links = _LINK.findall(joined) + [m[1] for line in bare if (m := _REFERENCE.match(line))]
    page.anchors = _anchors(prose)
    page.sentences = _sentences(prose)
    return page


def _indented(prose: list[str], page: Page) -> None:
    """Blocks of code that stand four columns in, after an empty line and outside of lists."""
    after_empty, block = True, None
    in_list = False
    for i, line in enumerate(prose):
        if line.startswith("    ") and not in_list and (after_empty or block is not None):
            if block is None:
                block = []
                page.blocks.append(("", block))
            block.append(line[4:])
            prose[i] = ""
        else:
            block = None
            if line.strip():
                in_list = bool(_ITEM.match(line)) or (in_list and line.startswith(" "))
        after_empty = not line.strip()


def _anchors(prose: list[str]) -> set[str]:
    """As GitHub makes them of headings."""
    seen: Counter[str] = Counter()
    anchors = set()
    for line in prose:
        if heading := _HEADING.match(line):
            words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1].strip().lower())
            slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
            anchors.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
    return anchors


def _sentences(prose: list[str]) -> list[str]:
    paragraphs: list[str] = [""]
    for line in prose:
        if not line.strip() or line.startswith(("#", "|", "![")) or _REFERENCE.match(line):
            paragraphs.append("")
        elif _ITEM.match(line):
            paragraphs.append(_ITEM.sub("", line))
        else:
            paragraphs[-1] += " " + line.strip()
    sentences = []
    for paragraph in paragraphs:
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", paragraph)
        sentences += [s.strip() for s in re.split(r"(?<=[.!?])\s+", shown) if s.strip()]
    return sentences
