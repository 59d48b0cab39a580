"""minuet, for Neovim."""

from __future__ import annotations

from subllm.cli.editors import places
from subllm.cli.editors.endpoint import Endpoint
from subllm.cli.editors.scripts_text import LuaCode, LuaFile
from subllm.cli.editors.tool import Settings, Tool


def _settings(to: Endpoint) -> Settings:
    return {
        "provider": "openai_fim_compatible",
        "n_completions": 1,  # on a CPU more of them come at the expense of the first
        "context_window": 4096,  # characters
        "request_timeout": 5,
        "provider_options": {
            "openai_fim_compatible": {
                "name": "subllm",
                "end_point": f"{to.openai}/completions",
                "model": to.model,
                "api_key": LuaCode(to.some_key),
                "stream": True,
                "optional": {"max_tokens": 64},
            }
        },
        "virtualtext": {
            "auto_trigger_ft": ["*"],
            "keymap": {
                "accept": "<A-A>",
                "accept_line": "<A-a>",
                "next": "<A-]>",
                "prev": "<A-[>",
                "dismiss": "<A-e>",
            },
        },
    }


TOOL = Tool(
    name="minuet",
    title="minuet",
    format=LuaFile("milanglacier/minuet-ai.nvim"),
    file=lambda: places.config("nvim", "lua", "plugins", "subllm.lua"),
    settings=_settings,
    notes=lambda _: ["Alt-A takes a suggestion, Alt-a its first line, Alt-e sends it away."],
)
