"""A tokenizer as a file that is used where it is mapped: facts and tables.

    32 bytes    sha256 of all that follows
    8 bytes     length of the header, little-endian
    header      JSON: format, source, facts, pipeline, arrays; null where there are no tables
    arrays      in their order, each from a multiple of 8 bytes

It is derived from a bundle and can be made again, so whatever is odd about one makes it
void: nobody repairs or converts it.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from subllm.models.text.bpe_tables import BpeTables
from subllm.models.text.tokenizer_files import TokenizerFacts

# Raised when facts, tables or what tables mean change; old files are then made again.
COMPACT_FORMAT = 1

_DIGEST = 32
_ARRAYS: dict[str, Any] = {
    "pairs": np.uint64,
    "ranks": np.uint32,
    "results": np.uint32,
    "text": np.uint8,
    "ends": np.uint32,
    "order": np.uint32,
}


def to_compact(source: str, facts: TokenizerFacts, tables: BpeTables | None) -> bytes:
    """source  the digest of the bundle that facts and tables were made from
    tables  None for a vocabulary that has none: the file then saves trying again"""
    arrays = {} if tables is None else {name: getattr(tables, name) for name in _ARRAYS}
    header = json.dumps(
        {
            "format": COMPACT_FORMAT,
            "source": source,
            "facts": facts.to_dict(),
            "pipeline": tables and tables.pipeline,
            "arrays": {name: array.size for name, array in arrays.items()},
        }
    ).encode()
    header += b" " * (-len(header) % 8)
    pieces = [len(header).to_bytes(8, "little"), header]
    for array in arrays.values():
        pieces += [array.tobytes(), bytes(-array.nbytes % 8)]
    body = b"".join(pieces)
    return hashlib.sha256(body).digest() + body


def from_compact(data: Any, source: str) -> tuple[TokenizerFacts, BpeTables | None]:
    """The arrays are views of `data`, a buffer. Raises ValueError for anything but a whole
    file of this format that was made from `source`."""
    view = memoryview(data)
    if bytes(view[:_DIGEST]) != hashlib.sha256(view[_DIGEST:]).digest():
        raise ValueError("the digest does not match")
    start = _DIGEST + 8
    size = int.from_bytes(view[_DIGEST:start], "little")
    try:
        header = json.loads(bytes(view[start : start + size]))
        if (header["format"], header["source"]) != (COMPACT_FORMAT, source):
            raise ValueError("another format or source")
        facts = TokenizerFacts.from_dict(header["facts"])
        if header["pipeline"] is None:
            return facts, None
        arrays: dict[str, Any] = {}
        at = start + size
        for name, dtype in _ARRAYS.items():
            count = header["arrays"][name]
            arrays[name] = array = np.frombuffer(view, dtype, count, at)
            at += array.nbytes + -array.nbytes % 8
        return facts, BpeTables(header["pipeline"], **arrays)
    except (KeyError, TypeError) as error:
        raise ValueError("the header is malformed") from error
