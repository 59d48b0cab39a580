"""Text to token ids and back, with one model's special tokens and chat template.

Built once from the files of a checkpoint, then kept as one self-contained bundle that
loads without parsing the vocabulary in Python.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from subllm.errors import WeightsError
from subllm.models.text.coder import Coder, LibraryCoder
from subllm.models.text.token_bytes import bytes_of_token, spelling_of
from subllm.models.text.tokenizer_files import TokenizerFacts, read_facts

BUNDLE_FORMAT = 1


class Tokenizer:
    """Thread-safe: nothing changes after construction."""

    def __init__(self, coder: Coder, facts: TokenizerFacts, definition: Callable[[], str]) -> None:
        """`definition` gives the text of the `tokenizer.json` behind `coder`."""
        self.coder = coder
        self.facts = facts
        self._definition = definition
        self._special = frozenset(facts.special_ids)
        self._markers = facts.marker_pattern()

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> Tokenizer:
        """From a checkpoint's files by name; `tokenizer.json` must be there.

        Raises WeightsError for missing or malformed files.
        """
        facts = read_facts(files)
        return cls.from_definition(files["tokenizer.json"].decode(), facts)

    @classmethod
    def from_bundle(cls, bundle: bytes) -> Tokenizer:
        """From what `to_bundle` returned. Raises WeightsError when malformed."""
        try:
            data = json.loads(bundle)
            if data["format"] != BUNDLE_FORMAT:
                raise WeightsError(
                    f"tokenizer bundle format {data['format']!r} is not {BUNDLE_FORMAT}; "
                    "update subllm"
                )
            definition, facts = data["tokenizer"], TokenizerFacts.from_dict(data["facts"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise WeightsError("a tokenizer bundle is malformed; run 'subllm verify'") from error
        return cls.from_definition(definition, facts)

    @classmethod
    def from_definition(cls, definition: str, facts: TokenizerFacts) -> Tokenizer:
        """From the text of a `tokenizer.json`. Raises WeightsError when malformed."""
        return cls(LibraryCoder(definition), facts, lambda: definition)

    def to_bundle(self) -> bytes:
        """One JSON document, the same bytes for the same tokenizer."""
        data: dict[str, Any] = {
            "format": BUNDLE_FORMAT,
            "facts": self.facts.to_dict(),
            "tokenizer": self._definition(),
        }
        return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()

    def encode(self, text: str, *, bos: bool | None = None) -> list[int]:
        """Special tokens written in the text are recognised.

        bos  whether to put the bos token first; None does as the model was trained,
             unless the text starts with it already
        """
        return self._with_bos(self.coder.encode(text), bos)

    def encode_plain(
        self, text: str, *, bos: bool | None = False, goes_on: bool = False
    ) -> list[int]:
        """As `encode`, but special tokens written in the text are ordinary text.

        A text that spells one is cut inside it, so that neither part is recognised.
        goes_on  it continues another text: without the space that SentencePiece puts before
                 one
        """
        return self._with_bos(self._encode_pieces(self._cut_markers(text), goes_on), bos)

    def cut(self, text: str, mark: str) -> str:
        """The text with `mark` put inside every special token that it spells."""
        return mark.join(self._cut_markers(text))

    def encode_cut(self, text: str, mark: str) -> list[int]:
        """As `encode` without bos; encoding starts anew at each `mark`, which goes."""
        return self._encode_pieces(text.split(mark))

    def decode(self, ids: Sequence[int], skip_special: bool = False) -> str:
        """Bytes that are not UTF-8 become U+FFFD."""
        return self.coder.decode(ids, skip_special)

    def token_bytes(self, token_id: int) -> bytes:
        """What the token adds to a text; empty for ids that have no token."""
        text = self.coder.text_of(token_id)
        if text is None:
            return b""
        if token_id in self.coder.added_ids:
            return text.encode()
        return bytes_of_token(text, byte_level=self.facts.byte_level)

    def along(self, data: bytes) -> npt.NDArray[np.bool_]:
        """bool [vocab_size], True for the tokens of text with one of which a text begins that
        begins with these bytes (whole characters, but for the first, of which the end is enough):
        those that are the same so far, longer or shorter, special and added ones left out."""
        byte_level = self.facts.byte_level
        found = np.zeros(self.vocab_size, np.bool_)
        spellings = {
            spelling_of(data[:end], byte_level=byte_level) for end in range(1, len(data) + 1)
        }
        if not byte_level:
            spellings.add(f"<0x{data[0]:02X}>")
        ids = [self.coder.id_of(spelling) for spelling in spellings if spelling is not None]
        found[[number for number in ids if number is not None]] = True
        if whole := spelling_of(data, byte_level=byte_level):
            found[self.coder.starting(whole)] = True
        found[list(self.coder.added_ids)] = False
        return found

    def id_of(self, token: str) -> int | None:
        """The id of a token by its text ("<|im_end|>"), None if there is none."""
        return self.coder.id_of(token)

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Every token that ends a generation."""
        return self.facts.eos_ids

    @property
    def bos_id(self) -> int | None:
        return self.facts.bos_id

    @property
    def adds_bos(self) -> bool:
        """Whether the model expects its bos token before every text."""
        return self.facts.add_bos

    @property
    def vocab_size(self) -> int:
        """One more than the highest id that stands for a token."""
        return self.facts.vocab_size

    @property
    def special_ids(self) -> frozenset[int]:
        """Tokens that steer the model and are no text."""
        return self._special

    @property
    def chat_template(self) -> str | None:
        return self.facts.chat_template

    @property
    def bos_token(self) -> str:
        """Text of the bos token, empty if there is none (chat templates want it)."""
        return self._text_of(self.facts.bos_id)

    @property
    def eos_token(self) -> str:
        """Text of the main eos token, empty if there is none."""
        return self._text_of(self.facts.eos_ids[0] if self.facts.eos_ids else None)

    def _text_of(self, token_id: int | None) -> str:
        return "" if token_id is None else (self.coder.text_of(token_id) or "")

    def _with_bos(self, ids: list[int], bos: bool | None) -> list[int]:
        bos_id = self.facts.bos_id
        if bos_id is None or bos is False:
            return ids
        if bos is None and (not self.facts.add_bos or ids[:1] == [bos_id]):
            return ids
        return [bos_id, *ids]

    def _encode_pieces(self, pieces: Iterable[str], goes_on: bool = False) -> list[int]:
        ids: list[int] = []
        for number, piece in enumerate(pieces):
            coder = self.coder.continuing if number or goes_on else self.coder
            ids += coder.encode(piece)
        return ids

    def _cut_markers(self, text: str) -> Iterable[str]:
        pending = [text]
        while pending:
            piece = pending.pop()
            match = self._markers.search(piece) if self._markers else None
            if match is None:
                yield piece
                continue
            cut = match.start() + 1
            pending += [piece[cut:], piece[:cut]]
