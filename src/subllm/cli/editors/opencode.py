"""opencode, an agent for the terminal."""

from __future__ import annotations

from subllm.cli.editors import agents, jsonc, places
from subllm.cli.editors.endpoint import Endpoint
from subllm.cli.editors.tool import Settings, Tool


def _settings(to: Endpoint) -> Settings:
    return {
        "provider": {
            "subllm": {
                "npm": "@ai-sdk/openai-compatible",
                "name": "subllm",
                "options": {"baseURL": to.openai, "apiKey": to.some_key},
                "models": {
                    to.model: {
                        "name": f"subllm {to.model}",
                        "limit": {"context": to.context, "output": to.context // 4},
                    }
                },
            }
        }
    }


TOOL = Tool(
    name="opencode",
    title="opencode",
    format=jsonc,
    file=lambda: places.config("opencode", "opencode.json"),
    settings=_settings,
    gentle=lambda to: {
        "$schema": "https://opencode.ai/config.json",
        "model": f"subllm/{to.model}",
    },
    notes=lambda to: ["Choose the model with /models.", *agents.warning(to)],
)
