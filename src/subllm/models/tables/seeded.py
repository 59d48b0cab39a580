"""Choices and orders that a seed decides."""

from __future__ import annotations

import hashlib


def key(*parts: object) -> int:
    """64 bits that depend on nothing but the parts: for orders and choices that must be
    the same on every machine and in every version."""
    text = "\0".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little")
