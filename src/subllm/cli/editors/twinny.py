"""twinny, for VS Code."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from subllm.cli.editors import jsonc, places
from subllm.cli.editors.endpoint import Endpoint
from subllm.cli.editors.tool import Settings, Tool


def _settings(to: Endpoint) -> Settings:
    """Providers by id. Of the dialects that twinny speaks, Ollama's is the one that it speaks
    to the letter."""
    parts = urlsplit(to.url)
    server: dict[str, Any] = {
        "provider": "ollama",
        "modelName": to.model,
        "apiProtocol": parts.scheme,
        "apiHostname": parts.hostname,
        "apiPort": parts.port,
        "apiKey": to.key or "",
    }
    return {
        "subllm-chat": {
            "id": "subllm-chat",
            "label": "subllm",
            "type": "chat",
            "apiPath": "/v1",
            **server,
        },
        "subllm-fim": {
            "id": "subllm-fim",
            "label": "subllm FIM",
            "type": "fim",
            "apiPath": "/api/generate",
            "fimTemplate": "automatic",
            **server,
        },
    }


TOOL = Tool(
    name="twinny",
    title="twinny",
    format=jsonc,
    file=lambda: places.vscode("globalStorage", "rjmacarthy.twinny", "twinny-providers.json"),
    settings=_settings,
    notes=lambda _: [
        'twinny reads that file where settings.json says "twinny.providerStorageLocation": "file"; '
        "else import the printed text in its Providers tab.",
        "In the Providers tab choose 'subllm' for chat and 'subllm FIM' for completion.",
    ],
)
