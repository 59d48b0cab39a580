"""langchain-openai: invoke and stream."""

from __future__ import annotations

from asked import MODEL, QUESTION, TOKENS, URL
from langchain_openai import ChatOpenAI

model = ChatOpenAI(
    model=MODEL, base_url=f"{URL}/v1", api_key="none", temperature=0, max_tokens=TOKENS
)
whole = model.invoke(QUESTION)
assert whole.content and whole.usage_metadata["output_tokens"] <= TOKENS
assert "".join(piece.content for piece in model.stream(QUESTION)) == whole.content
