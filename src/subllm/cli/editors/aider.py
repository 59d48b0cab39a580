"""aider, a pair programmer for the terminal."""

from __future__ import annotations

from subllm.cli.editors import places, yaml_text
from subllm.cli.editors.tool import Tool

TOOL = Tool(
    name="aider",
    title="aider",
    format=yaml_text,
    file=lambda: places.home(".aider.conf.yml"),
    settings=lambda to: {
        "model": f"openai/{to.model}",
        "openai-api-base": to.openai,
        "openai-api-key": to.some_key,
    },
    # Small models write whole files better than differences, and a map of the repository
    # would take much of their context.
    gentle=lambda _: {"edit-format": "whole", "map-tokens": 0, "show-model-warnings": False},
)
