"""What `subllm complete --set` may say."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Sampling(BaseModel):
    """As in a request to the server, which checks it again."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    stop: list[str] | None = None
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, ge=0.1, le=10)
    seed: int | None = None
    speculation: str | None = None
