"""llama.vscode, ggml's own extension."""

from __future__ import annotations

from subllm.cli.editors import jsonc, places
from subllm.cli.editors.endpoint import Endpoint
from subllm.cli.editors.tool import Settings, Tool


def _settings(to: Endpoint) -> Settings:
    return {
        "llama-vscode.endpoint": to.url,
        "llama-vscode.endpoint_chat": to.url,
        "llama-vscode.api_key": to.key or "",
        "llama-vscode.api_key_chat": to.key or "",
        "llama-vscode.ai_model": to.model,
    }


def _gentle(_: Endpoint) -> Settings:
    return {
        "llama-vscode.ask_install_llamacpp": False,
        "llama-vscode.env_start_last_used": False,
        # One proposal: on a CPU more of them come at the expense of the first.
        "llama-vscode.max_parallel_completions": 1,
        # Searching the project needs embeddings, which are not served.
        "llama-vscode.rag_enabled": False,
    }


TOOL = Tool(
    name="vscode-llama",
    title="llama.vscode",
    format=jsonc,
    file=lambda: places.vscode("settings.json"),
    settings=_settings,
    gentle=_gentle,
    notes=lambda _: ["Where llama.vscode asks for an environment, choose 'Empty - no models'."],
)
