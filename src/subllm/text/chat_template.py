"""A model's own chat template, run in a sandbox: the template comes from a file that
somebody else wrote.

It cannot reach Python's internals, change the messages, repeat or pad strings, count
further than MAX_STEPS or render more than MAX_OUTPUT characters. What is not covered: a
template that doubles a string many times by concatenation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from subllm.errors import UsageError, WeightsError

MAX_TEMPLATE = 1 << 18  # characters
MAX_OUTPUT = 1 << 24  # characters
MAX_STEPS = 100_000  # numbers that all ranges of one rendering may yield

# Ways to a huge string from a short template; no chat template needs them.
_FORBIDDEN_METHODS = frozenset(
    ["center", "expandtabs", "format", "format_map", "ljust", "rjust", "zfill"]
)
_FORBIDDEN_FILTERS = ("center", "format", "indent", "wordwrap", "xmlattr")


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, less what builds huge values from small ones."""

    intercepted_binops = frozenset(["*", "**", "%"])

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str) and attr in _FORBIDDEN_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def call_binop(
        self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any
    ) -> Any:
        if operator == "**":
            raise jinja2.exceptions.SecurityError("powers are not allowed")
        if not all(isinstance(value, int | float) for value in (left, right)):
            raise jinja2.exceptions.SecurityError(f"{operator!r} is for numbers only")
        return super().call_binop(context, operator, left, right)


class _Ranges:
    """`range` for one rendering: all of them share MAX_STEPS."""

    def __init__(self) -> None:
        self._left = MAX_STEPS

    def __call__(self, *args: int) -> range:
        values = range(*args)
        self._left -= len(values)
        if self._left < 0:
            raise jinja2.exceptions.SecurityError(f"its loops exceed {MAX_STEPS} steps")
        return values


def _raise_exception(message: str) -> None:
    raise jinja2.exceptions.TemplateRuntimeError(str(message))


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None) -> str:
    # Unlike jinja's own filter this does not escape for HTML.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)


class ChatTemplate:
    """A compiled template. Thread-safe."""

    def __init__(self, source: str, bos_token: str = "", eos_token: str = "") -> None:
        """Raises WeightsError for a template that does not compile."""
        if len(source) > MAX_TEMPLATE:
            raise WeightsError(
                f"the chat template has {len(source)} characters, at most {MAX_TEMPLATE} are run"
            )
        environment = _Environment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols"],
            autoescape=False,  # the output is a prompt, not HTML
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _now
        for name in _FORBIDDEN_FILTERS:
            environment.filters.pop(name)
        environment.globals.pop("lipsum")
        try:
            self._template = environment.from_string(source)
        except (jinja2.TemplateError, RecursionError) as error:
            raise WeightsError(f"the model's chat template does not compile: {error}") from error
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        **extras: Any,
    ) -> str:
        """The prompt for these messages (`role`, `content`, ...).

        extras  further variables of the template (tools, enable_thinking, ...)
        Raises UsageError for messages that the template refuses, or an output of more
        than MAX_OUTPUT characters.
        """
        if not messages:
            raise UsageError("messages is empty; send at least one message")
        pieces: list[str] = []
        size = 0
        variables = {
            "tools": None,
            **extras,
            "range": _Ranges(),
            **self._tokens,
            "messages": [dict(message) for message in messages],
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            for piece in self._template.generate(variables):
                size += len(piece)
                if size > MAX_OUTPUT:
                    raise UsageError(
                        f"the rendered chat exceeds {MAX_OUTPUT} characters; send less"
                    )
                pieces.append(piece)
        except jinja2.exceptions.SecurityError as error:
            raise UsageError(
                f"the model's chat template does what the sandbox forbids ({error}); "
                "use the completions endpoint"
            ) from error
        except (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
            raise UsageError(
                f"the model's chat template refuses these messages: {error}"
            ) from error
        return "".join(pieces)
