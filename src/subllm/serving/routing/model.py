"""A linear model over tokens that tells languages apart, without numpy: a request should not
wait for an import.

The weights of a feature for all languages are one integer, a field of 24 bits for each, so that
a text's scores are one sum. `scripts/make-detector` trains it and writes `data/detector.xz`.
"""

from __future__ import annotations

import json
import lzma
import math
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from subllm.serving.routing.tokens import Feature, features

FORMAT = 1
_FIELD = 3  # bytes: 65,793 features of the highest weight fit
_FEW, _LEAST = 8, 6  # `x = 1` has five features and is in any language
_OFFSET = 128  # weights are stored without sign


@dataclass(frozen=True)
class Detector:
    """languages: what is told apart; bias: one each; scale: of an integer weight; table:
    feature -> packed weights; known: the words among the features."""

    languages: tuple[str, ...]
    bias: tuple[float, ...]
    scale: float
    table: dict[Feature, int]

    def probabilities(self, text: str) -> dict[str, float]:
        """Of each language; {} where the text has too little that the model knows."""
        found = features(text, self.table)
        weights = [w for w in map(self.table.get, found) if w is not None]
        if len(weights) < _LEAST:
            return {}
        packed = sum(weights).to_bytes(_FIELD * len(self.languages), "little")
        offset, factor = _OFFSET * len(weights), self.scale * value_of(len(weights))
        logits = [
            bias + factor * (int.from_bytes(packed[at : at + _FIELD], "little") - offset)
            for bias, at in zip(self.bias, range(0, len(packed), _FIELD), strict=True)
        ]
        most = max(logits)
        exponents = [math.exp(logit - most) for logit in logits]
        total = sum(exponents)
        return dict(zip(self.languages, (e / total for e in exponents), strict=True))


def value_of(count: int) -> float:
    """Of each of `count` features of a text. A few of them are no proof."""
    return 1 / math.sqrt(count + _FEW)


def pack(weights: bytes) -> int:
    """A row of weights, each plus 128, as one integer."""
    return int.from_bytes(b"".join(bytes((w, 0, 0)) for w in weights), "little")


def write(
    languages: list[str],
    bias: list[float],
    scale: float,
    rows: list[tuple[Feature, bytes]],
    provenance: dict[str, Any],
) -> bytes:
    """The data file. `rows` are features with their weights, each plus 128."""
    head = {
        "format": FORMAT,
        "languages": languages,
        "bias": bias,
        "scale": scale,
        "features": len(rows),
        "provenance": provenance,
    }
    names = [" ".join(name) if isinstance(name, tuple) else name for name, _ in rows]
    # By language rather than by feature: alike bytes side by side pack smaller.
    columns = b"".join(bytes(row[k] for _, row in rows) for k in range(len(languages)))
    text = "\n".join([json.dumps(head), *names]) + "\n"
    return lzma.compress(text.encode() + columns, preset=9 | lzma.PRESET_EXTREME)


def read(data: bytes) -> Detector:
    raw = lzma.decompress(data)
    first, _, rest = raw.partition(b"\n")
    head = json.loads(first)
    count, languages = head["features"], tuple(head["languages"])
    *lines, columns = rest.split(b"\n", count)
    table: dict[Feature, int] = {}
    views = [columns[k * count : (k + 1) * count] for k in range(len(languages))]
    for line, row in zip(lines, zip(*views, strict=True), strict=True):
        one, _, two = line.decode().partition(" ")
        table[(one, two) if two else one] = pack(bytes(row))
    return Detector(languages, tuple(head["bias"]), head["scale"], table)


@cache
def detector() -> Detector:
    """The model that ships with subllm, read once."""
    return read((files("subllm.serving.routing") / "data/detector.xz").read_bytes())
