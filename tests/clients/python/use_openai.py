"""OpenAI's own client: completions, chat, responses, models, errors."""

from __future__ import annotations

import json

import openai
from asked import MODEL, NO_MODEL, PREFIX, PROMPT, QUESTION, SIZES, SUFFIX, TOKENS, URL

client = openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0)
assert MODEL in {model.id for model in client.models.list()}
assert client.models.retrieve(MODEL).id == MODEL

whole = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=TOKENS, logprobs=2)
assert whole.choices[0].text and whole.usage and whole.usage.completion_tokens <= TOKENS
assert whole.choices[0].logprobs and whole.choices[0].logprobs.token_logprobs
*pieces, last = client.completions.create(
    model=MODEL,
    prompt=PROMPT,
    max_tokens=TOKENS,
    stream=True,
    stream_options={"include_usage": True},
)
assert "".join(piece.choices[0].text for piece in pieces) == whole.choices[0].text
assert last.usage and last.usage.completion_tokens == whole.usage.completion_tokens
hole = client.completions.create(model=MODEL, prompt=PREFIX, suffix=SUFFIX, max_tokens=TOKENS)
assert hole.choices[0].text.strip()

ask = [{"role": "user", "content": QUESTION}]
reply = client.chat.completions.create(model=MODEL, messages=ask, max_completion_tokens=TOKENS)
text = reply.choices[0].message.content
assert text and reply.choices[0].finish_reason in ("stop", "length")
stream = client.chat.completions.create(
    model=MODEL, messages=ask, max_completion_tokens=TOKENS, stream=True
)
assert "".join(piece.choices[0].delta.content or "" for piece in stream) == text

response = client.responses.create(model=MODEL, input=QUESTION, max_output_tokens=TOKENS)
assert response.output_text == text
events = client.responses.create(model=MODEL, input=QUESTION, max_output_tokens=TOKENS, stream=True)
deltas = (event.delta for event in events if event.type == "response.output_text.delta")
assert "".join(deltas) == text

form = {"type": "json_schema", "json_schema": {"name": "size", "schema": SIZES}}
sized = client.chat.completions.create(model=MODEL, messages=ask, response_format=form)
assert json.loads(sized.choices[0].message.content)["size"] in ("small", "large")
tool = {"type": "function", "function": {"name": "resize", "parameters": SIZES}}
calling = {
    "model": MODEL,
    "messages": ask,
    "tools": [tool],
    "tool_choice": "required",
    "parallel_tool_calls": False,
}
called = client.chat.completions.create(**calling).choices[0]
call = called.message.tool_calls[0].function
assert called.finish_reason == "tool_calls" and call.name == "resize"
assert json.loads(call.arguments)["size"] in ("small", "large")
with client.chat.completions.stream(**calling) as stream:
    final = stream.get_final_completion().choices[0].message
    assert final.tool_calls[0].function.arguments == call.arguments

try:
    client.completions.create(model=NO_MODEL, prompt="x")
except openai.NotFoundError as error:
    assert NO_MODEL in str(error)
else:
    raise AssertionError("an unknown model was answered")
