"""One schema for everything that a person may configure.

A value comes from the first of: a command-line option (`load_settings(port=1)`), the
environment (`SUBLLM_PORT`), the file `config.toml`, the default below. The file lies in the
user's configuration directory, or where `SUBLLM_CONFIG` points.

Importing this module costs about 0.2 s (pydantic-settings), so commands import it lazily.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from subllm.errors import SettingsError
from subllm.quantities import bytes_of, seconds_of
from subllm.served_context import DEFAULT_CONTEXT

ENV_PREFIX = "SUBLLM_"
CONFIG_VARIABLE = "SUBLLM_CONFIG"
_MODEL_NAME = r"[a-z0-9._-]+:[a-z0-9._]+-[a-z0-9._-]+"  # whether it is one, the store tells


def default_home() -> Path:
    """The store's default place, e.g. ~/.local/share/subllm."""
    return Path(platformdirs.user_data_dir("subllm", appauthor=False))


_ORIGIN = r"[a-z][a-z0-9+.-]*://[\w.*-]+(:[\d*]+)?"  # a scheme, a name, perhaps a port


class Settings(BaseSettings):
    """Effective settings. Every field can be set as `SUBLLM_<FIELD>` or in config.toml."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, extra="forbid", frozen=True
    )

    home: Path = Field(default_factory=default_home, description="Where models are stored.")
    catalog: Path | None = Field(None, description="Your own catalog file, added to ours.")
    offline: bool = Field(False, description="Never open a network connection to fetch models.")
    hub_probe_seconds: float = Field(
        3.0, gt=0, le=60, description="How long to wait for the model hub to answer at all."
    )
    threads: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        None, description="Threads for computing. Default: the cores this process may use."
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$",
        description="Where to compute: cpu, cuda, cuda:N, or auto: the GPU with the most free "
        "memory that a model fits, else the CPU.",
    )
    backend: Literal["auto", "native", "cuda", "torch"] = Field(
        "auto",
        description="What computes: native (packed weights, CPU), cuda (packed weights, GPU), "
        "torch (unpacked), or auto by device.",
    )
    kv_type: Literal["bfloat16", "int8"] = Field(
        "bfloat16",
        description="Type of keys and values in memory; int8 takes half the room (native only).",
    )
    speculation: str = Field(
        "auto",
        max_length=96,
        pattern=rf"^(auto|off|ngram|{_MODEL_NAME})$",
        description="What drafts answers, for their model to check several tokens at once; they "
        "stay the same: auto (a smaller model that suits, and text seen before), ngram (the "
        "latter alone), off, or a model's name.",
    )
    screened_head: bool = Field(
        True,
        description="Whether tokens are ranked by a 2-bit copy of the head before the head itself "
        "is read for the best (native only).",
    )
    context_length: Annotated[int, Field(ge=64, le=1_048_576)] | None = Field(
        None,
        description="Longest prompt plus completion in tokens, where the model's maximum is not "
        f"less. Default: {DEFAULT_CONTEXT}, or less where the server's memory is too small for it.",
    )
    host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address that the server listens on, or unix:PATH for a Unix socket.",
    )
    port: int = Field(11435, ge=1, le=65535, description="Port that the server listens on.")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Names under which clients may reach the server besides localhost, as in "
        "box.lan,box.example; several are separated by commas.",
    )
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        ("vscode-webview://*",),
        description="Origins of pages that may ask the server from a browser, as in "
        "https://app.example; * stands for any characters, several are separated by commas.",
    )
    api_key: SecretStr | None = Field(
        None, min_length=1, description="Key that clients of the server must send."
    )
    max_loaded_models: int = Field(
        4, ge=1, le=64, description="Models that the server keeps in memory at once."
    )
    memory: str = Field(
        "75%",
        description="Memory that the server's models may take with what is asked of them, as in "
        "4GB, or a share of what is free when it starts, as in 50%.",
    )
    preload: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Models that the server loads when it starts and keeps whatever comes, "
        "separated by commas.",
    )
    keep_alive: str = Field(
        "30m",
        description="How long the server keeps a model that nobody uses: seconds, or as in 5m or "
        "1h30m; 0 unloads it at once, -1 never. Requests may say otherwise.",
    )
    max_queue: int = Field(
        64, ge=1, le=10_000, description="Requests that may wait in the server before it says 429."
    )
    auto_extract: bool = Field(
        False,
        description="Whether the server has a language extracted, in the background and at low "
        "priority, that is asked for 20 times a day and has no sub-model.",
    )
    auto_update: bool = Field(
        False,
        description="Whether the server does what 'subllm update --all' does, once a day, in the "
        "background and at low priority, when nobody has asked it for a quarter of an hour.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="How much the server logs."
    )

    @field_validator("home", "catalog")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        """`~` expanded, and absolute, so that a later change of directory changes nothing."""
        return None if value is None else Path(os.path.abspath(value.expanduser()))  # noqa: PTH100

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _host_names(cls, value: object) -> object:
        """From a comma-separated text too; what the Host header of a request says then."""
        if isinstance(value, str):
            value = [name.strip() for name in value.split(",")]
        if isinstance(value, (list, tuple)):
            for name in value:
                if not (isinstance(name, str) and re.fullmatch(r"[\w.-]+", name)):
                    raise ValueError("give a name such as box.lan, without scheme and port")
            return tuple(name.lower() for name in value)
        return value

    @field_validator("keep_alive", mode="before")
    @classmethod
    def _duration(cls, value: object) -> object:
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            raise ValueError("it must be a number or a text")
        seconds_of(value)
        return str(value)

    @field_validator("preload", mode="before")
    @classmethod
    def _model_names(cls, value: object) -> object:
        if isinstance(value, str):
            value = [name.strip() for name in value.split(",")]
        if isinstance(value, (list, tuple)):
            for name in value:
                if not (isinstance(name, str) and re.fullmatch(_MODEL_NAME, name)):
                    raise ValueError("give names of models, as 'subllm list' shows them")
            return tuple(value)
        return value

    @field_validator("memory", mode="before")
    @classmethod
    def _amount(cls, value: object) -> object:
        bytes_of(str(value), 10**9)
        return str(value)

    @field_validator("allowed_origins", mode="before")
    @classmethod
    def _origins(cls, value: object) -> object:
        """From a comma-separated text too; what the header Origin of a request says then."""
        if isinstance(value, str):
            value = [origin.strip() for origin in value.split(",") if origin.strip()]
        if isinstance(value, (list, tuple)):
            for origin in value:
                if not (isinstance(origin, str) and re.fullmatch(_ORIGIN, origin)):
                    raise ValueError("give an origin such as https://app.example, without a path")
            return tuple(origin.lower() for origin in value)
        return value

    @field_validator("host")
    @classmethod
    def _socket(cls, value: str) -> str:
        """The path of a Unix socket absolute, as paths are."""
        if not value.startswith("unix:"):
            return value
        path = value.removeprefix("unix:")
        if not path:
            raise ValueError("give the path of the socket, as in unix:~/subllm.sock")
        return "unix:" + os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, config_path())


def config_path() -> Path:
    """The configuration file, whether it exists or not."""
    named = os.environ.get(CONFIG_VARIABLE)
    if named:
        return Path(named).expanduser()
    return Path(platformdirs.user_config_dir("subllm", appauthor=False)) / "config.toml"


def load_settings(**options: Any) -> Settings:
    """Settings with `options` on top; an option that is None counts as not given.

    Raises SettingsError naming the option, variable or file that holds the bad value.
    """
    given = {name: value for name, value in options.items() if value is not None}
    in_file = _read_config(config_path())
    try:
        return Settings(**given)
    except ValidationError as error:
        raise SettingsError(_explain(error, given, in_file)) from error


def help_for(field: str) -> str:
    """One line of help for a command-line option that sets `field`."""
    info = Settings.model_fields[field]
    text = info.description or ""
    default = ",".join(info.default) if isinstance(info.default, tuple) else info.default
    shown = "" if default in (None, "") or info.default_factory else f", default {default}"
    return f"{text} [{ENV_PREFIX}{field.upper()}{shown}]"


def _read_config(path: Path) -> dict[str, Any]:
    """The file's keys; {} when it is absent and nobody named it."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if os.environ.get(CONFIG_VARIABLE):
            raise SettingsError(f"{CONFIG_VARIABLE}: there is no file {path}") from error
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(f"{path}: cannot be read as TOML ({reason}); correct it") from error


def _explain(error: ValidationError, given: dict[str, Any], in_file: dict[str, Any]) -> str:
    """One line for the first thing wrong, led by where the value came from."""
    first = error.errors(include_url=False, include_context=False)[0]
    field = str(first["loc"][0]) if first["loc"] else ""
    variable = f"{ENV_PREFIX}{field.upper()}"
    if field in given:
        source = f"--{field.replace('_', '-')}"
    elif os.environ.get(variable):
        source = variable
    elif field in in_file:
        source = f"{config_path()}: {field}"
    else:
        source = field
    if first["type"] == "extra_forbidden":
        known = ", ".join(sorted(Settings.model_fields))
        return f"{source} is not a setting; known are {known}"
    shown = "" if field == "api_key" else f" (got {str(first['input'])!r:.60})"
    meaning = Settings.model_fields[field].description if field in Settings.model_fields else ""
    reason = first["msg"][:1].lower() + first["msg"][1:]
    if first["type"] == "string_pattern_mismatch":  # a regular expression is no help
        reason = "none of its values"
    return f"{source}: {reason}{shown}; it means: {meaning}"
