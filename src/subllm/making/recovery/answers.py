"""A teacher's answers on disk: about 100 bytes a token.

One file per base, text, temperature and compute dtype, which every recovery on that text
shares: a header, then a slot a row. A slot holds a check sum and, for each token of the
row, a record of k outcomes:

    2 k bytes    low 16 bits of their token ids, little-endian
    k / 4 bytes  two more bits each (k bytes, eight bits, where a vocabulary wants them)
    k bytes      log-probabilities: (v / 255)^2 * -16 nats, finest where they are near 0
    2 bytes      what probability is left, float16

and where states before the head are kept too, for each of them

    2 bytes      a scale, float16
    a byte each  the state's values, in units of the scale

A slot that was not written whole, or whose bytes changed, does not match its sum: the row
is missing and made again.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from subllm.making.recovery.loss import TopK
from subllm.making.recovery.rows import RecoveryText
from subllm.models.store.files import disk_errors

_HEADER = 4096
_SUM = 4
_LOWEST = 16.0  # nats; an outcome rarer than that is taken as this likely
_FORMAT = 1


@dataclass(frozen=True)
class Asked:
    """Who answers, and how: the digest of the dense base, its vocabulary, the k outcomes that are
    told apart, and the size of the states that are kept beside the answers, 0 for none."""

    base: str
    vocabulary: int
    k: int
    temperature: float = 1.0
    compute: str = "bfloat16"
    hidden: int = 0


class Answers:
    """The answers to one text. Not for two threads; two processes may share a file."""

    def __init__(self, directory: Path, text: RecoveryText, asked: Asked) -> None:
        """Raises DiskFullError."""
        vocabulary, hidden = asked.vocabulary, asked.hidden
        self.k = min(asked.k, vocabulary)
        self._wide = vocabulary > 1 << 18
        self._text = text
        high = self.k if self._wide else -(-self.k // 4)
        self._hidden = hidden
        self._outcomes = 2 * self.k + high + self.k + 2
        self._record = self._outcomes + (2 + hidden if hidden else 0)
        self._slot = _SUM + text.length * self._record
        about: dict[str, Any] = {
            "format": _FORMAT, "base": asked.base, "text": text.digest, "k": self.k,
            "temperature": asked.temperature, "compute": asked.compute, "vocabulary": vocabulary,
        }  # fmt: skip
        if hidden:
            about["hidden"] = hidden
        header = json.dumps(about, sort_keys=True).encode()
        self.path = directory / f"answers-{hashlib.sha256(header).hexdigest()[:32]}"
        size = _HEADER + text.rows * self._slot
        with disk_errors(self.path):
            directory.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                file.seek(0)
                if file.read(_HEADER).rstrip(b"\0") != header:
                    file.truncate(0)
                    file.write(header.ljust(_HEADER, b"\0"))
                file.truncate(size)  # holes, where nothing was answered yet
            self._slots = np.memmap(self.path, np.uint8, "r+", _HEADER, (text.rows, self._slot))
        self._known = np.zeros(text.rows, np.bool_)  # whose sum was found right

    @property
    def token_bytes(self) -> int:
        """Of one record."""
        return self._record

    def has(self, row: int) -> bool:
        if not self._known[row]:
            slot = self._slots[row]
            self._known[row] = _sum(slot[_SUM:]) == int(slot[:_SUM].view("<u4")[0])
        return bool(self._known[row])

    def put(self, row: int, answer: TopK, states: torch.Tensor | None = None) -> None:
        """answer: of the row's learned positions; states [n, hidden]: theirs, where states are
        kept. Raises DiskFullError."""
        slot = np.zeros(self._slot, np.uint8)
        records = slot[_SUM:].reshape(self._text.length, self._record)
        records[: len(answer.ids), : self._outcomes] = self._encode(answer)
        if self._hidden:
            assert states is not None
            records[: len(states), self._outcomes :] = _encode_states(states)
        slot[:_SUM].view("<u4")[0] = _sum(slot[_SUM:])
        # Written, not stored through the map: a full disk is an error there, here a signal
        # that ends the process.
        with disk_errors(self.path), self.path.open("r+b") as file:
            file.seek(_HEADER + row * self._slot)
            file.write(slot.tobytes())
        self._known[row] = True

    def get(self, row: int) -> TopK | None:
        """None for a row that has no answer."""
        if not self.has(row):
            return None
        count = int(self._text.learned[row].sum())
        records = self._slots[row][_SUM:].reshape(self._text.length, self._record)
        return self._decode(np.array(records[:count, : self._outcomes]))

    def states(self, row: int) -> torch.Tensor:
        """float32 [n, hidden] at the learned positions of a row that has its answer."""
        count = int(self._text.learned[row].sum())
        records = self._slots[row][_SUM:].reshape(self._text.length, self._record)
        return _decode_states(np.array(records[:count, self._outcomes :]))

    def _encode(self, answer: TopK) -> npt.NDArray[np.uint8]:
        ids = answer.ids.cpu().numpy()
        low = np.ascontiguousarray(ids & 0xFFFF, "<u2").view(np.uint8)
        high = (ids >> 16).astype(np.uint8)
        if not self._wide:
            high = np.pad(high, ((0, 0), (0, -self.k % 4)))
            high = (
                high[:, 0::4] | high[:, 1::4] << 2 | high[:, 2::4] << 4 | high[:, 3::4] << 6
            ).astype(np.uint8)
        chances = answer.chances.double().cpu().numpy()
        nats = np.minimum(-np.log(np.maximum(chances, 1e-30)), _LOWEST)
        codes = np.rint(255 * np.sqrt(np.maximum(nats, 0.0) / _LOWEST)).astype(np.uint8)
        rest = answer.rest.cpu().numpy().astype("<f2")[:, None].view(np.uint8)
        return np.concatenate([low, high, codes, rest], axis=1)

    def _decode(self, records: npt.NDArray[np.uint8]) -> TopK:
        k = self.k
        low = np.ascontiguousarray(records[:, : 2 * k]).view("<u2").astype(np.int64)
        high = records[:, 2 * k : -k - 2].astype(np.int64)
        if not self._wide:
            pieces = [high >> shift & 3 for shift in (0, 2, 4, 6)]
            high = np.stack(pieces, axis=2).reshape(len(records), -1)[:, :k]
        ids = low | high << 16
        codes = records[:, -k - 2 : -2].astype(np.float32)
        chances = np.exp(-_LOWEST * np.square(codes / 255))
        rest = np.ascontiguousarray(records[:, -2:]).view("<f2")[:, 0].astype(np.float32)
        # Rounding must not make the teacher surer or less sure of all its choices together.
        chances *= ((1 - rest) / chances.sum(1))[:, None]
        return TopK(torch.from_numpy(ids), torch.from_numpy(chances), torch.from_numpy(rest))


def _encode_states(states: torch.Tensor) -> npt.NDArray[np.uint8]:
    values = states.float().cpu().numpy()
    scales = (np.abs(values).max(1, keepdims=True) / 127).astype("<f2")
    units = np.divide(
        values, scales.astype(np.float32), out=np.zeros_like(values), where=scales != 0
    )
    codes = np.rint(np.clip(units, -127, 127)).astype(np.int8)
    return np.concatenate([scales.view(np.uint8), codes.view(np.uint8)], axis=1)


def _decode_states(records: npt.NDArray[np.uint8]) -> torch.Tensor:
    scales = np.ascontiguousarray(records[:, :2]).view("<f2").astype(np.float32)
    codes = np.ascontiguousarray(records[:, 2:]).view(np.int8)
    return torch.from_numpy(scales * codes.astype(np.float32))


def _sum(data: npt.NDArray[np.uint8]) -> int:
    """Never what an empty slot has for one."""
    return zlib.crc32(np.ascontiguousarray(data).data) or 1
