"""Text that must not be learned from: benchmarks, told by hashes of ten words in a row.

The hashes of the benchmarks that subllm knows of come with it (GRAMS), so that what a user makes
or brings is compared with them where none of their text is there:

    a line of JSON: {"format": 1, "hashes": how many, "compared": names of files}
    xz of their differences, sorted, BYTES each: the lowest byte of all, then the next ones

One run of ten words in twenty million shares a hash by chance.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from subllm.making.textmaking.words import grams, words_of

GRAMS = Path(__file__).with_name("benchmarks.grams")
BYTES = 5
Gram = tuple[str, ...]


class KnownText:
    """Word 10-grams that must not occur in a text.

    Lines that only import are no problem's property, and neither are grams of numbers: one
    needs MIN_NAMES different names to count.
    """

    N = 10
    MIN_NAMES = 5
    _IMPORT = re.compile(r"^\s*(#\s*include|import|from \S+ import|using|package|const \w+ = req)")

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self.hashes: set[int] = set()
        self.compared: tuple[str, ...] = ()
        self.add(texts)

    def add(self, texts: Iterable[str]) -> None:
        for text in texts:
            self.hashes.update(map(_hash, self._of(text)))

    def _of(self, text: str) -> set[Gram]:
        kept = [line for line in text.splitlines() if not self._IMPORT.match(line)]
        found = grams(words_of("\n".join(kept)), self.N)
        return {g for g in found if len({w for w in g if not w[0].isdigit()}) >= self.MIN_NAMES}

    def shared(self, text: str) -> set[Gram]:
        """The grams of `text` that are known."""
        return {gram for gram in self._of(text) if _hash(gram) in self.hashes}

    def overlaps(self, text: str) -> str | None:
        return "benchmark overlap" if self.shared(text) else None


def shipped() -> KnownText:
    """The benchmarks that come with subllm as hashes, by the names of their files."""
    head, _, body = GRAMS.read_bytes().partition(b"\n")
    known = KnownText()
    planes = np.frombuffer(lzma.decompress(body), np.uint8).reshape(BYTES, -1)
    steps = np.zeros((planes.shape[1], 8), np.uint8)
    steps[:, :BYTES] = planes.T
    known.hashes.update(np.cumsum(steps.view("<i8")[:, 0]).tolist())
    known.compared = tuple(json.loads(head)["compared"])
    return known


def write_grams(known: KnownText, names: Iterable[str], path: Path = GRAMS) -> int:
    """What `shipped` reads; its size in bytes."""
    hashes = np.array(sorted(known.hashes), np.int64)
    steps = np.diff(hashes, prepend=0).astype("<i8")
    planes = np.ascontiguousarray(steps[:, None].view(np.uint8)[:, :BYTES].T)
    head = json.dumps({"format": 1, "hashes": len(hashes), "compared": sorted(names)})
    data = head.encode() + b"\n" + lzma.compress(planes.tobytes(), preset=9)
    path.write_bytes(data)
    return len(data)


def _hash(gram: Gram) -> int:
    text = " ".join(gram).encode("utf-8", "replace")
    return int.from_bytes(hashlib.blake2b(text, digest_size=BYTES).digest(), "little")
