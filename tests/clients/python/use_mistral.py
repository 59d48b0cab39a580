"""Mistral's own client: fill-in-the-middle, whole and as a stream; chat."""

from __future__ import annotations

from asked import MODEL, PREFIX, QUESTION, SUFFIX, TOKENS, URL
from mistralai.client import Mistral

client = Mistral(api_key="none", server_url=URL)
hole = {"model": MODEL, "prompt": PREFIX, "suffix": SUFFIX, "max_tokens": TOKENS}
whole = client.fim.complete(**hole)
text = whole.choices[0].message.content
assert text.strip() and whole.usage.completion_tokens <= TOKENS
pieces = client.fim.stream(**hole)
assert "".join(str(piece.data.choices[0].delta.content) for piece in pieces) == text
reply = client.chat.complete(
    model=MODEL, messages=[{"role": "user", "content": QUESTION}], max_tokens=TOKENS
)
assert reply.choices[0].message.content
