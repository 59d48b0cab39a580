"""Anthropic's own client: messages, whole and as a stream, tokens counted, errors."""

from __future__ import annotations

import anthropic
from asked import MODEL, NO_MODEL, QUESTION, SIZES, TOKENS, URL

client = anthropic.Anthropic(base_url=URL, api_key="none", max_retries=0)
ask = [{"role": "user", "content": QUESTION}]
reply = client.messages.create(model=MODEL, messages=ask, max_tokens=TOKENS)
assert reply.content[0].text
assert reply.stop_reason in ("end_turn", "max_tokens")
counted = client.messages.count_tokens(model=MODEL, messages=ask).input_tokens
usage = reply.usage
assert counted == usage.input_tokens + (usage.cache_read_input_tokens or 0)
with client.messages.stream(model=MODEL, messages=ask, max_tokens=TOKENS) as stream:
    assert "".join(stream.text_stream) == reply.content[0].text
    assert stream.get_final_message().stop_reason == reply.stop_reason

tools = [{"name": "resize", "input_schema": SIZES}]
choice = {"type": "any", "disable_parallel_tool_use": True}
calling = {"model": MODEL, "messages": ask, "max_tokens": 200, "tools": tools}
called = client.messages.create(**calling, tool_choice=choice)
assert called.stop_reason == "tool_use" and called.content[0].input["size"] in ("small", "large")

try:
    client.messages.create(model=NO_MODEL, messages=ask, max_tokens=1)
except anthropic.NotFoundError as error:
    assert NO_MODEL in str(error)
else:
    raise AssertionError("an unknown model was answered")
