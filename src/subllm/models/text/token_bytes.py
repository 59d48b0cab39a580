"""The bytes behind a vocabulary entry."""

from __future__ import annotations

import re
from functools import cache

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@cache
def byte_alphabet() -> dict[str, int]:
    """The printable characters that byte-level vocabularies write bytes with."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if byte not in set(printable)]
    table.update({chr(256 + position): byte for position, byte in enumerate(others)})
    return table


def is_byte_token(token: str) -> bool:
    """Whether it is spelt as SentencePiece spells a single byte, such as <0x0A>."""
    return _BYTE_TOKEN.fullmatch(token) is not None


def spelling_of(data: bytes, *, byte_level: bool) -> str | None:
    """How a vocabulary writes these bytes within a token of several; None where it cannot: half a
    character, in one that writes characters. The converse of `bytes_of_token`."""
    if byte_level:
        return "".join(map(_byte_spellings().__getitem__, data))
    try:
        return data.decode().replace(" ", "\u2581")
    except UnicodeDecodeError:
        return None


@cache
def _byte_spellings() -> list[str]:
    spelt = {byte: char for char, byte in byte_alphabet().items()}
    return [spelt[byte] for byte in range(256)]


def bytes_of_token(token: str, *, byte_level: bool) -> bytes:
    """Bytes of an ordinary (not an added) token.

    byte_level  the vocabulary spells bytes in `byte_alphabet`; otherwise it is
                SentencePiece's, with U+2581 for a space and <0x0A> for a single byte
    """
    if byte_level:
        table = byte_alphabet()
        if all(char in table for char in token):
            return bytes(table[char] for char in token)
        return token.encode()
    if match := _BYTE_TOKEN.fullmatch(token):
        return bytes([int(match[1], 16)])
    return token.replace("\u2581", " ").encode()
