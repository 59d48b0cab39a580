"""Vim script and Lua: a marked block in a file of the user's, or a file of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from subllm.cli.editors.tool import Settings
from subllm.errors import UsageError

BEGIN, END = "subllm begin", "subllm end"


class VimBlock:
    """`let g:NAME = {...}` between two marks, which a later merge finds again."""

    def __init__(self, variable: str) -> None:
        self._variable = variable

    def render(self, settings: Settings) -> str:
        lines = [f"    \\ {_vim(key)}: {_vim(value)}," for key, value in settings.items()]
        body = [f"let g:{self._variable} = {{", *lines, r"    \ }"]
        return "\n".join([f'" {BEGIN}', *body, f'" {END}', ""])

    def merge(self, text: str, settings: Settings, gentle: Settings) -> str:
        block = self.render({**gentle, **settings})
        marked = re.compile(rf'^" {BEGIN}$.*?^" {END}$\n?', re.DOTALL | re.MULTILINE)
        if marked.search(text):
            return marked.sub(lambda _: block, text, count=1)
        if re.search(rf"^\s*let\s+g:{self._variable}\b", text, re.MULTILINE):
            raise UsageError(
                f"it sets g:{self._variable} itself; put the printed settings in by hand"
            )
        # Before everything: plugins read it when they load.
        return block + ("\n" + text if text else "")


class LuaFile:
    """A module of its own that returns the settings of a plugin, for lazy.nvim."""

    def __init__(self, plugin: str) -> None:
        self._plugin = plugin

    def render(self, settings: Settings) -> str:
        options = _lua(settings, "    ")
        return (
            f"-- {BEGIN}: written by 'subllm config', for lazy.nvim; with another manager pass\n"
            f"-- what follows 'opts =' to the plugin's setup function\n"
            f'return {{\n  {{\n    "{self._plugin}",\n'
            f'    dependencies = {{ "nvim-lua/plenary.nvim" }},\n'
            f"    opts = {options},\n  }},\n}}\n"
        )

    def merge(self, text: str, settings: Settings, gentle: Settings) -> str:
        if text.strip() and not text.startswith(f"-- {BEGIN}"):
            raise UsageError("it is not of subllm's making; give another --file")
        return self.render({**gentle, **settings})


def _vim(value: Any) -> str:
    if isinstance(value, bool):
        return "v:true" if value else "v:false"
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"


def _lua(value: Any, indent: str) -> str:
    inner = indent + "  "
    if isinstance(value, Mapping):
        lines = [f"{inner}{key} = {_lua(item, inner)},\n" for key, item in value.items()]
        return "{\n" + "".join(lines) + indent + "}"
    if isinstance(value, list):
        return "{ " + ", ".join(_lua(item, inner) for item in value) + " }"
    if isinstance(value, LuaCode):
        return value.code
    return json.dumps(value, ensure_ascii=False)


class LuaCode(str):
    """A string that Lua computes: a function that returns it."""

    @property
    def code(self) -> str:
        return f"function() return {json.dumps(str(self), ensure_ascii=False)} end"
