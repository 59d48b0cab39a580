"""Log-probabilities in the two forms of the OpenAI API."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from subllm.engine.request import TokenLogprob
from subllm.models.text.stream_decoder import StreamDecoder

if TYPE_CHECKING:
    from subllm.models.text.tokenizer import Tokenizer


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """The token as text; one that is not whole UTF-8 as `bytes:\\xe2\\x80`, as OpenAI does."""
    data = tokenizer.token_bytes(token)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


class LegacyLogprobs:
    """Builds the parallel lists of /v1/completions; `offset`, in characters of the text,
    runs on from call to call. Special tokens count where the text has them (a prompt's
    has)."""

    def __init__(
        self, tokenizer: Tokenizer, offset: int = 0, *, special_is_text: bool = False
    ) -> None:
        self._tokenizer = tokenizer
        self._offset = offset
        self._decoder = StreamDecoder(tokenizer, skip_special=not special_is_text)

    def build(
        self, tokens: Iterable[int], entries: Iterable[TokenLogprob | None]
    ) -> dict[str, Any]:
        """tokens and entries have the same length; None is a token without context."""
        out: dict[str, list[Any]] = {
            "tokens": [],
            "token_logprobs": [],
            "top_logprobs": [],
            "text_offset": [],
        }
        for token, entry in zip(tokens, entries, strict=True):
            text = token_text(self._tokenizer, token)
            out["tokens"].append(text)
            out["text_offset"].append(self._offset)
            self._offset += len(self._decoder.push(token))
            if entry is None:
                out["token_logprobs"].append(None)
                out["top_logprobs"].append(None)
                continue
            out["token_logprobs"].append(entry.logprob)
            top = {token_text(self._tokenizer, i): value for i, value in entry.top}
            top.setdefault(text, entry.logprob)
            out["top_logprobs"].append(top)
        return out


def merge_legacy(parts: list[dict[str, Any]]) -> dict[str, Any]:
    merged: dict[str, list[Any]] = {
        "tokens": [],
        "token_logprobs": [],
        "top_logprobs": [],
        "text_offset": [],
    }
    for part in parts:
        for name, values in merged.items():
            values += part[name]
    return merged


def chat_logprobs(tokenizer: Tokenizer, entries: Iterable[TokenLogprob]) -> list[dict[str, Any]]:
    """The `content` list of /v1/chat/completions."""
    return [
        {
            **_entry(tokenizer, entry.token, entry.logprob),
            "top_logprobs": [_entry(tokenizer, token, value) for token, value in entry.top],
        }
        for entry in entries
    ]


def _entry(tokenizer: Tokenizer, token: int, logprob: float) -> dict[str, Any]:
    return {
        "token": token_text(tokenizer, token),
        "logprob": logprob,
        "bytes": list(tokenizer.token_bytes(token)),
    }
