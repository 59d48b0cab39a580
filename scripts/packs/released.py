"""Code packs: released code of one language that recovery learns from.

  scripts/make-packs code       fetch the packages of released.yaml and write the packs

Files are cut into pieces of about one sample, before blank lines; pieces that are mostly
comments, repetitive, name people or places on the web, share ten words with a benchmark, or are
nearly another piece, are left out. The same packages give the same packs, byte for byte.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from assemble import write
from registries import Archive, fetch

from subllm.making.calibration.files import extension_of, tag_of
from subllm.making.calibration.source import Document, pieces
from subllm.making.textmaking import filters
from subllm.making.textmaking.known import KnownText
from subllm.making.textmaking.privacy import private
from subllm.models.tables.seeded import key

SOURCES = Path(__file__).with_name("released.yaml")
CHARACTERS = 1_900_000  # about half a million tokens
MIN_LINES, MIN_CHARACTERS, LONGEST_LINE = 8, 240, 240
MOST_COMMENT = 0.6  # of the lines
_EXTENSIONS = {
    "python": {"py"},
    "javascript": {"js", "mjs"},
    "java": {"java"},
    "cpp": {"cc", "cpp", "h", "hpp"},
}
_TESTS = re.compile(
    r"(?i)(^|/)(\w*tests?|testing|benchmarks?|fuzz|third_party|vendor|dist|umd)(/|$)"
    r"|(^|/)(test_\w+|\w+_(test|bench|benchmark))\.\w+$|\.(min|test|spec)\."
)
_COMMENT = re.compile(r"\s*(#(?!include|define|if|el|endif|pragma)|//|/?\*)")
_BLOCK = re.compile(r"\A\s*(?:/\*.*?\*/|(?:(?://|#)[^\n]*\n)+)\s*", re.DOTALL)
_NOTICE = re.compile(r"(?i)copyright|licen[cs]e|spdx|eslint|#!")


@dataclass
class CodePack:
    """samples: in pack form; taken: pieces of each package; rejected: why the others went."""

    samples: list[dict[str, Any]] = field(default_factory=list)
    taken: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    characters: int = 0


def sources() -> dict[str, list[dict[str, Any]]]:
    """Language -> packages, of SOURCES."""
    loaded: dict[str, list[dict[str, Any]]] = yaml.safe_load(SOURCES.read_text())
    return loaded


def build(
    language: str,
    packages: list[tuple[dict[str, Any], Archive]],
    benchmark: KnownText,
    characters: int = CHARACTERS,
) -> CodePack:
    """Of each package its share of `characters`, in a seeded order of its pieces; what one has
    not, the others give."""
    pack, seen = CodePack(), filters.Seen()
    left = sum(entry.get("share", 1) for entry, _ in packages)
    # Small packages first: what they lack goes to the large.
    for entry, archive in sorted(packages, key=lambda one: _size(one[1], language, one[0])):
        share = entry.get("share", 1)
        budget = (characters - pack.characters) * share // left
        left -= share
        used = 0
        for document in sorted(
            _pieces(archive, language, entry), key=lambda document: key("code", document.id)
        ):
            if used >= budget:
                break
            reason = _unfit(document.text, benchmark, seen)
            if reason:
                pack.rejected[reason] += 1
                continue
            seen.add(document.text)
            used += len(document.text)
            pack.taken[entry["package"]] += 1
            pack.samples.append(
                {"id": document.id, "split": "train", "answer": "file", "tag": document.tag,
                 "code": document.text}
            )  # fmt: skip
        pack.characters += used
    pack.samples.sort(key=lambda sample: sample["id"])
    return pack


def _chosen(archive: Archive, language: str, entry: dict[str, Any]) -> list[str]:
    paths = tuple(entry.get("paths", ("",)))
    return [
        name
        for name in archive.files
        if extension_of(name) in _EXTENSIONS[language]
        and name.startswith(paths)
        and not _TESTS.search(name)
    ]


def _size(archive: Archive, language: str, entry: dict[str, Any]) -> float:
    size = sum(len(archive.files[name]) for name in _chosen(archive, language, entry))
    return size / float(entry.get("share", 1))


def _pieces(archive: Archive, language: str, entry: dict[str, Any]) -> list[Document]:
    found = []
    for name in _chosen(archive, language, entry):
        text = without_notice(archive.files[name])
        tag = language if extension_of(name) == "h" else tag_of(name)
        found += pieces(Document(f"{entry['package']}/{name}", text, tag=tag))
    return [
        Document(piece.id, piece.text.strip("\n") + "\n", tag=piece.tag)
        for piece in found
        if piece.text.strip()
    ]


def without_notice(text: str) -> str:
    """The text without the comments at its head that speak of licences."""
    while (head := _BLOCK.match(text)) and _NOTICE.search(head[0]):
        text = text[head.end() :]
    return text


def _unfit(text: str, benchmark: KnownText, seen: filters.Seen) -> str | None:
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) < MIN_LINES or len(text) < MIN_CHARACTERS:
        return "too short"
    if max(map(len, lines)) > LONGEST_LINE:
        return "long lines"
    if sum(bool(_COMMENT.match(line)) for line in lines) > MOST_COMMENT * len(lines):
        return "mostly comments"
    for check in (
        filters.foreign_letters, filters.repetitive, private, benchmark.overlaps,
        seen.near_duplicate,
    ):  # fmt: skip
        if reason := check(text):
            return reason
    return None


def write_code_packs(cache: Path, out: Path, benchmarks: tuple[list[str], KnownText]) -> None:
    """One pack a language into `out`. Raises LookupError for a package that cannot be had."""
    names, benchmark = benchmarks
    for language, entries in sources().items():
        packages = [
            (entry, fetch(entry["registry"], entry["package"], str(entry["version"]), cache))
            for entry in entries
        ]
        pack = build(language, packages, benchmark)
        size = write(
            out / f"{language}.jsonl.xz", header(language, pack, packages, names), pack.samples
        )
        print(
            f"{language}: {len(pack.samples)} pieces, {pack.characters} characters, {size} bytes; "
            f"rejected: {dict(sorted(pack.rejected.items()))}"
        )
        print("  " + json.dumps(dict(pack.taken)))


def header(
    language: str, pack: CodePack, packages: list[tuple[dict[str, Any], Archive]], names: list[str]
) -> dict[str, Any]:
    """The first line of a code pack: where each text is from and under which licence."""
    return {
        "pack": f"code:{language}",
        "version": 1,
        "provenance": {
            "kind": "released code, unchanged but for cuts and licence comments at a file's head",
            "packages": [
                {
                    "registry": entry["registry"],
                    "package": entry["package"],
                    "version": str(entry["version"]),
                    "sha256": archive.sha256,
                    "licence": entry["licence"],
                    "pieces": pack.taken[entry["package"]],
                    "notice": archive.licence[:12_000],
                }
                for entry, archive in packages
                if pack.taken[entry["package"]]
            ],
            "rejected": dict(sorted(pack.rejected.items())),
            "benchmark overlap": {"compared": names or "not checked"},
            "command": "scripts/make-packs code",
        },
    }
