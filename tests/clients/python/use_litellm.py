"""litellm by way of its providers openai, text-completion-openai, ollama and ollama_chat."""

from __future__ import annotations

import litellm
from asked import MODEL, NO_MODEL, PROMPT, QUESTION, TOKENS, URL

ask = [{"role": "user", "content": QUESTION}]
for provider, base in (("openai", f"{URL}/v1"), ("ollama", URL), ("ollama_chat", URL)):
    asked = {
        "model": f"{provider}/{MODEL}",
        "messages": ask,
        "max_tokens": TOKENS,
        "temperature": 0,
        "api_base": base,
        "api_key": "none",
    }
    whole = litellm.completion(**asked)
    text = whole.choices[0].message.content
    assert text and whole.usage.completion_tokens <= TOKENS, provider
    pieces = litellm.completion(**asked, stream=True)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == text, provider

done = litellm.text_completion(
    model=f"text-completion-openai/{MODEL}",
    prompt=PROMPT,
    max_tokens=TOKENS,
    api_base=f"{URL}/v1",
    api_key="none",
)
assert done.choices[0].text

try:
    litellm.completion(
        model=f"openai/{NO_MODEL}", messages=ask, api_base=f"{URL}/v1", api_key="none"
    )
except litellm.NotFoundError as error:
    assert NO_MODEL in str(error)
else:
    raise AssertionError("an unknown model was answered")
