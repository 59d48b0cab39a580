"""Zed: edit prediction, and the assistant."""

from __future__ import annotations

from subllm.cli.editors import jsonc, places
from subllm.cli.editors.endpoint import Endpoint
from subllm.cli.editors.tool import Settings, Tool


def _settings(to: Endpoint) -> Settings:
    prediction = {
        "api_url": f"{to.openai}/completions",
        "model": to.model,
        "max_output_tokens": 64,
    }
    if "qwen" in to.model:
        prediction["prompt_format"] = "qwen"
    return {
        "edit_predictions": {
            "provider": "open_ai_compatible_api",
            "open_ai_compatible_api": prediction,
        },
        "language_models": {
            "openai_compatible": {
                "subllm": {
                    "api_url": to.openai,
                    "available_models": [
                        {
                            "name": to.model,
                            "display_name": f"subllm {to.model}",
                            "max_tokens": to.context,
                            "max_output_tokens": to.context // 4,
                            "capabilities": {
                                "tools": False,
                                "images": False,
                                "parallel_tool_calls": False,
                                "prompt_cache_key": False,
                            },
                        }
                    ],
                }
            }
        },
    }


def _notes(to: Endpoint) -> list[str]:
    if to.key is None:
        return ["For chat Zed asks once for a key of 'subllm': give any text."]
    return [
        "Zed takes keys from its environment: set SUBLLM_API_KEY and "
        "ZED_OPEN_AI_COMPATIBLE_EDIT_PREDICTION_API_KEY to the server's key before it starts."
    ]


TOOL = Tool(
    name="zed",
    title="Zed",
    format=jsonc,
    file=lambda: places.zed("settings.json"),
    settings=_settings,
    notes=_notes,
)
