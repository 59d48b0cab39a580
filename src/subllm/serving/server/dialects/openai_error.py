"""OpenAI's error object."""

from __future__ import annotations

from typing import Any

from subllm.serving.server.errors import ApiError


def error_body(error: ApiError) -> dict[str, Any]:
    return {
        "error": {
            "message": error.message,
            "type": error.kind,
            "param": error.param,
            "code": error.code,
        }
    }
