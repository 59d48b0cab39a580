"""Cline: its command line, and the extension that shares its settings."""

from __future__ import annotations

from subllm.cli.editors import agents, jsonc, places
from subllm.cli.editors.endpoint import Endpoint
from subllm.cli.editors.tool import Settings, Tool

PROVIDER = "openai-compatible"


def _settings(to: Endpoint) -> Settings:
    return {
        "version": 1,
        "lastUsedProvider": PROVIDER,
        "providers": {
            PROVIDER: {
                "settings": {
                    "provider": PROVIDER,
                    "apiKey": to.some_key,
                    "model": to.model,
                    "baseUrl": to.openai,
                },
                "tokenSource": "manual",
            }
        },
    }


TOOL = Tool(
    name="cline",
    title="Cline",
    format=jsonc,
    file=lambda: places.home(".cline", "data", "settings", "providers.json"),
    settings=_settings,
    gentle=lambda _: {
        "modes": {},
        "providers": {PROVIDER: {"updatedAt": "1970-01-01T00:00:00.000Z"}},
    },
    notes=lambda to: [
        "In VS Code: API Provider 'OpenAI Compatible', with these Base URL, API Key and Model ID.",
        *agents.warning(to),
    ],
)
