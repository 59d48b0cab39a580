"""What the server may be told, with defaults that are safe on a shared machine."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from subllm.errors import SettingsError

UNIX = "unix:"
"""What a host begins with that is the path of a Unix socket."""


@dataclass(frozen=True)
class Limits:
    """Bounds on one request; going over one is a 400 (413 for the body)."""

    body_bytes: int = 8 * 1024 * 1024
    choices: int = 64  # prompts x n
    stops: int = 16
    stop_chars: int = 256
    logprobs: int = 20
    messages: int = 1024
    logit_bias: int = 1024


@dataclass(frozen=True)
class ServerConfig:
    """How the server binds, whom it answers and how much it keeps loaded.

    A host other than loopback needs `api_key`. `allowed_hosts` extends the Host
    headers that are answered (localhost, *.localhost, 127.0.0.1, [::1]). `allowed_origins` are
    those of pages in browsers that may ask and read answers (`*` for any characters in one).
    `host` may be `unix:PATH`, a socket that this user alone may open; `port` says nothing then.
    `default_base` is preferred by `auto` when several bases have the language.
    `max_engines` and `memory`, bytes of weights, keys and values and kept prefixes together
    (None: as many as there are engines, each with the KV memory of one context), bound the
    loaded models; those used longest ago go first. Each runs `max_batch` completions at once;
    `max_queue` more may wait before the answer is 429. A step of one runs at most `step_tokens`
    tokens (None: what the engine is made for).
    `preload` names models that are loaded at the start and stay. Another that nobody has used
    for `keep_alive` seconds is unloaded, where no request said otherwise. A reply of which
    nothing comes shows a sign of life every `keep_alive_seconds`.
    `context_length` bounds prompt and completion in tokens; see `served_context`.
    `speculation` is what drafts where a request does not say; see `server.drafting`.
    """

    host: str = "127.0.0.1"
    port: int = 11435
    api_key: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ("vscode-webview://*",)
    default_base: str = "qwen2.5-coder:0.5b"
    max_engines: int = 4
    memory: int | None = None
    max_batch: int = 8
    max_queue: int = 64
    preload: tuple[str, ...] = ()
    keep_alive: float = 1800.0
    step_tokens: int | None = None
    context_length: int | None = None
    speculation: str = "auto"
    completion_max_tokens: int = 256
    chat_max_tokens: int = 1024
    keep_alive_seconds: float = 15.0
    session_seconds: float = 1800.0
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise SettingsError(f"port {self.port} is not between 0 and 65535; choose another")
        for name in ("max_engines", "max_batch", "max_queue", "step_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingsError(f"{name} {value} is too low; use 1 or more")
        if len(self.preload) > self.max_engines:
            raise SettingsError(
                f"{len(self.preload)} models are to be preloaded and {self.max_engines} may be "
                "loaded; name fewer, or allow more with max_loaded_models in config.toml"
            )
        if self.api_key is not None and not self.api_key.strip():
            raise SettingsError("the API key is empty; set a real one or none")
        if self.api_key is None and not is_loopback(self.host):
            raise SettingsError(
                f"refusing to listen on {self.host} without an API key: "
                "anyone on the network could use it; set an API key or use 127.0.0.1"
            )


def is_loopback(host: str) -> bool:
    """True for localhost, loopback addresses and Unix sockets; names are not looked up."""
    if host == "localhost" or host.startswith(UNIX):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
