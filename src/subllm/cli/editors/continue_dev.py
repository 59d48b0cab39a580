"""Continue, for VS Code and JetBrains."""

from __future__ import annotations

from subllm.cli.editors import places, yaml_text
from subllm.cli.editors.endpoint import Endpoint
from subllm.cli.editors.tool import Settings, Tool


def _settings(to: Endpoint) -> Settings:
    model = {
        "provider": "openai",
        "model": to.model,
        "apiBase": to.openai,
        "apiKey": to.some_key,
    }
    return {
        "models": [
            {
                "name": "subllm",
                **model,
                "roles": ["chat", "edit", "apply"],
                "defaultCompletionOptions": {
                    "contextLength": to.context,
                    "maxTokens": to.context // 4,
                },
            },
            {
                "name": "subllm autocomplete",
                **model,
                "useLegacyCompletionsEndpoint": True,
                "roles": ["autocomplete"],
                "defaultCompletionOptions": {"contextLength": to.context, "maxTokens": 256},
                "autocompleteOptions": {"debounceDelay": 250, "maxPromptTokens": 1024},
            },
        ]
    }


TOOL = Tool(
    name="continue",
    title="Continue",
    format=yaml_text,
    file=lambda: places.home(".continue", "config.yaml"),
    settings=_settings,
    gentle=lambda _: {"name": "Local Assistant", "version": "1.0.0", "schema": "v1"},
    notes=lambda _: [
        "In Continue's panel choose 'subllm' for chat and 'subllm autocomplete' for autocomplete."
    ],
)
