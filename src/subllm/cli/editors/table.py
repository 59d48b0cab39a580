"""All clients by name."""

from __future__ import annotations

from subllm.cli.editors import (
    aider,
    cline,
    continue_dev,
    jupyter,
    llama_vim,
    llama_vscode,
    minuet,
    opencode,
    tabby,
    twinny,
    zed,
)

TOOLS = {
    module.TOOL.name: module.TOOL
    for module in (
        continue_dev,
        llama_vscode,
        llama_vim,
        zed,
        minuet,
        twinny,
        tabby,
        jupyter,
        opencode,
        aider,
        cline,
    )
}
