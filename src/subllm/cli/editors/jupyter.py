"""JupyterLab with notebook-intelligence: completion in cells and files, and chat."""

from __future__ import annotations

from subllm.cli.editors import jsonc, places
from subllm.cli.editors.endpoint import Endpoint
from subllm.cli.editors.tool import Settings, Tool


def _properties(model: str, to: Endpoint) -> list[dict[str, str]]:
    given = {
        "model_id": model,
        "base_url": to.openai,
        "api_key": to.some_key,
        "context_window": str(to.context),
    }
    return [{"id": name, "value": value} for name, value in given.items()]


def _settings(to: Endpoint) -> Settings:
    """Completion through litellm, which sends what is before and after the cursor; its other
    provider of OpenAI's dialect asks for completions in a chat."""
    return {
        "inline_completion_model": {
            "provider": "litellm-compatible",
            "model": "litellm-compatible-inline-completion-model",
            "properties": _properties(f"text-completion-openai/{to.model}", to),
        },
        "chat_model": {
            "provider": "openai-compatible",
            "model": "openai-compatible-chat-model",
            "properties": _properties(to.model, to),
        },
    }


TOOL = Tool(
    name="jupyter",
    title="notebook-intelligence for JupyterLab",
    format=jsonc,
    file=lambda: places.home(".jupyter", "nbi", "config.json"),
    settings=_settings,
    notes=lambda _: ["Start JupyterLab again: it reads the file when it starts."],
)
