"""Where a chat template runs: it comes from a file that somebody else wrote.

A template cannot reach Python's internals, change what it is given, or make one value of
more than MAX_OUTPUT characters out of a short text; its ranges yield at most MAX_STEPS
numbers. What is not covered: the time that nested loops and recursive macros take, and
many long strings kept at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import jinja2
import jinja2.nodes
import jinja2.visitor
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_OUTPUT = 1 << 24  # characters
MAX_STEPS = 100_000  # numbers that all ranges of one rendering may yield
MAX_INDENT = 8
MAX_NUMBER = 1 << 64

# Ways to a huge string from a short template; no chat template needs them.
_FORBIDDEN_METHODS = frozenset(
    ["center", "expandtabs", "format", "format_map", "ljust", "rjust", "translate", "zfill"]
)
_FORBIDDEN_FILTERS = ("batch", "center", "format", "indent", "slice", "wordwrap", "xmlattr")


class SandboxEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox, less what builds huge values from small ones."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols"],
            autoescape=False,  # the output is a prompt, not HTML
        )
        self.filters.update(tojson=_to_json, join=_join, replace=_replace)
        self.globals.update(raise_exception=_raise_exception, strftime_now=_now)
        for name in _FORBIDDEN_FILTERS:
            self.filters.pop(name)
        self.globals.pop("lipsum")

    def _parse(self, source: str, name: str | None, filename: str | None) -> jinja2.nodes.Template:
        tree = super()._parse(source, name, filename)
        return _JoinInstead().visit(tree)  # type: ignore[no-any-return]

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        """What macros, calls and block assignments put their output together with."""
        return _bounded_join("", list(parts))

    def wrap_str_format(self, value: Any) -> None:
        """No safe `str.format` is given out: "{:>9999999999}" is too much for any."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, int | float):  # (1).to_bytes(10 ** 9, "big")
            return False
        if isinstance(obj, str | bytes) and attr in _FORBIDDEN_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def call(self, context: jinja2.runtime.Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        owner, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
        if isinstance(owner, str) and name == "join":
            return _join(*args, d=owner) if len(args) == 1 else obj(*args)
        if isinstance(owner, str) and name == "replace":
            return _replace(owner, *args, **kwargs)
        return super().call(context, obj, *args, **kwargs)

    def call_binop(
        self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any
    ) -> Any:
        if operator == "**":
            raise SecurityError("powers are not allowed")
        numbers = all(isinstance(value, int | float) for value in (left, right))
        if operator == "+":
            if not numbers and len(left) + len(right) > MAX_OUTPUT:
                raise _too_long()
        elif not numbers:
            raise SecurityError(f"{operator!r} is for numbers only")
        value = super().call_binop(context, operator, left, right)
        if isinstance(value, int) and abs(value) > MAX_NUMBER:
            raise SecurityError("numbers are too large")
        return value


class Ranges:
    """`range` for one rendering: all of them share MAX_STEPS."""

    def __init__(self) -> None:
        self._left = MAX_STEPS

    def __call__(self, *args: int) -> range:
        values = range(*args)
        self._left -= len(values)
        if self._left < 0:
            raise SecurityError(f"its loops exceed {MAX_STEPS} steps")
        return values


class _JoinInstead(jinja2.visitor.NodeTransformer):
    """`a ~ b` becomes `[a, b] | join`, whose length is bounded."""

    def visit_Concat(self, node: jinja2.nodes.Concat) -> jinja2.nodes.Filter:
        self.generic_visit(node)
        items = jinja2.nodes.List(node.nodes, lineno=node.lineno)
        joined = jinja2.nodes.Filter(items, "join", [], [], None, None, lineno=node.lineno)
        assert node.environment is not None  # the parser set it
        joined.set_environment(node.environment)
        return joined


def _too_long() -> SecurityError:
    return SecurityError(f"a text exceeds {MAX_OUTPUT} characters")


def _bounded_join(separator: str, parts: list[str]) -> str:
    size = sum(map(len, parts)) + len(separator) * max(len(parts) - 1, 0)
    if size > MAX_OUTPUT:
        raise _too_long()
    return separator.join(parts)


def _join(value: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
    if attribute is not None:
        value = [item[attribute] for item in value]
    return _bounded_join(str(d), [str(item) for item in value])


def _replace(text: Any, old: str, new: str, count: int | None = None) -> str:
    source, old, new = str(text), str(old), str(new)
    found = source.count(old)
    if count is not None and count >= 0:
        found = min(found, count)
    if len(source) + found * (len(new) - len(old)) > MAX_OUTPUT:
        raise _too_long()
    return source.replace(old, new, -1 if count is None else count)


def _raise_exception(message: str) -> None:
    raise jinja2.exceptions.TemplateRuntimeError(str(message))


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None) -> str:
    # Unlike jinja's own filter this does not escape for HTML.
    if indent is not None and not 0 <= indent <= MAX_INDENT:
        raise SecurityError(f"an indent of {indent} is not allowed")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)
