"""Ollama's own client: what is there, generate with and without a suffix, chat."""

from __future__ import annotations

import json

import ollama
from asked import MODEL, NO_MODEL, PREFIX, PROMPT, QUESTION, SIZES, SUFFIX, TOKENS, URL

client = ollama.Client(URL)
few = {"num_predict": TOKENS}
assert MODEL in {model.model for model in client.list().models}
assert "insert" in (client.show(MODEL).capabilities or [])

whole = client.generate(MODEL, PROMPT, raw=True, options=few)
assert whole.response and whole.eval_count and whole.eval_count <= TOKENS
pieces = client.generate(MODEL, PROMPT, raw=True, options=few, stream=True)
assert "".join(piece.response for piece in pieces) == whole.response
assert client.generate(MODEL, PREFIX, suffix=SUFFIX, options=few).response.strip()
assert MODEL in {model.model for model in client.ps().models}

ask = [{"role": "user", "content": QUESTION}]
reply = client.chat(MODEL, ask, options=few)
assert reply.message.content
stream = client.chat(MODEL, ask, options=few, stream=True)
assert "".join(piece.message.content or "" for piece in stream) == reply.message.content

sized = client.chat(MODEL, ask, format=SIZES, options=few)
assert json.loads(sized.message.content)["size"] in ("small", "large")

try:
    client.generate(NO_MODEL, "x")
except ollama.ResponseError as error:
    assert error.status_code == 404 and NO_MODEL in error.error
else:
    raise AssertionError("an unknown model was answered")
