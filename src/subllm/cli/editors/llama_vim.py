"""llama.vim, for Vim and Neovim."""

from __future__ import annotations

from pathlib import Path

from subllm.cli.editors import places
from subllm.cli.editors.endpoint import Endpoint
from subllm.cli.editors.scripts_text import VimBlock
from subllm.cli.editors.tool import Settings, Tool


def _settings(to: Endpoint) -> Settings:
    return {
        "endpoint_fim": f"{to.url}/infill",
        "endpoint_inst": f"{to.openai}/chat/completions",
        "model_fim": to.model,
        "model_inst": to.model,
        "api_key": to.key or "",
    }


def _file() -> Path:
    """The first that is there of Vim's and Neovim's."""
    vimrc = places.home(".vimrc")
    others = (places.home(".vim", "vimrc"), places.config("nvim", "init.vim"))
    return next((path for path in (vimrc, *others) if path.exists()), vimrc)


TOOL = Tool(
    name="vim-llama",
    title="llama.vim",
    format=VimBlock("llama_config"),
    file=_file,
    settings=_settings,
    notes=lambda _: [
        "With init.lua say vim.cmd.source of a file with these lines, before plugins load."
    ],
)
