"""Tabby's clients: VS Code, JetBrains, Vim, and tabby-agent as a language server."""

from __future__ import annotations

from subllm.cli.editors import places, toml_text
from subllm.cli.editors.tool import Tool

TOOL = Tool(
    name="tabby",
    title="Tabby",
    format=toml_text,
    file=lambda: places.home(".tabby-client", "agent", "config.toml"),
    settings=lambda to: {"server": {"endpoint": to.url, "token": to.key or ""}},
    notes=lambda _: ["Restart the editor: Tabby reads the file when it starts."],
)
