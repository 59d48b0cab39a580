"""langchain-openai: invoke and stream, a tool, a form."""

from __future__ import annotations

from asked import MODEL, QUESTION, SIZES, TOKENS, URL
from langchain_openai import ChatOpenAI

asked = {"model": MODEL, "base_url": f"{URL}/v1", "api_key": "none", "temperature": 0}
model = ChatOpenAI(**asked, max_tokens=TOKENS)
whole = model.invoke(QUESTION)
assert whole.content and whole.usage_metadata["output_tokens"] <= TOKENS
assert "".join(piece.content for piece in model.stream(QUESTION)) == whole.content

tool = {"title": "resize", "description": "Changes the size.", **SIZES}
calls = (
    ChatOpenAI(**asked)
    .bind_tools([tool], tool_choice="required", parallel_tool_calls=False)
    .invoke(QUESTION)
    .tool_calls
)
assert calls[0]["name"] == "resize" and calls[0]["args"]["size"] in ("small", "large")
sized = ChatOpenAI(**asked).with_structured_output(tool, method="json_schema")
assert sized.invoke(QUESTION)["size"] in ("small", "large")
