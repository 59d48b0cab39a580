"""Whether code parses: Python by itself, the other languages by tree-sitter's grammars."""

from __future__ import annotations

import ast
import importlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from tree_sitter import Language, Node, Parser

_GRAMMARS = {
    "java": "tree_sitter_java",
    "cpp": "tree_sitter_cpp",
    "javascript": "tree_sitter_javascript",
}
LANGUAGES = ("python", *_GRAMMARS)

_FUNCTIONS = {
    "method_declaration",
    "constructor_declaration",
    "function_definition",
    "function_declaration",
    "generator_function_declaration",
    "function_expression",
    "arrow_function",
    "method_definition",
}
_EMPTY = {"comment", "line_comment", "block_comment"}


@dataclass(frozen=True)
class Code:
    """What a parser saw. functions: in no other, and with a statement in their bodies."""

    functions: int


def parse(code: str, language: str) -> Code | None:
    """None for code of one of LANGUAGES that does not parse."""
    if language == "python":
        return _python(code)
    root = _parser(language).parse(code.encode("utf-8", "replace")).root_node
    if root.has_error:
        return None
    return Code(sum(map(_says, _outermost(root))))


def _python(code: str) -> Code | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that Python does not know
            tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    found = 0
    open_nodes: list[ast.AST] = [tree]
    while open_nodes:
        node = open_nodes.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found += len(node.body) > (ast.get_docstring(node) is not None)
        else:
            open_nodes += ast.iter_child_nodes(node)
    return Code(found)


@cache
def _parser(language: str) -> Parser:
    grammar = importlib.import_module(_GRAMMARS[language])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return Parser(Language(grammar.language()))


def _outermost(root: Node) -> Iterator[Node]:
    open_nodes = [root]
    while open_nodes:
        node = open_nodes.pop()
        if node.type in _FUNCTIONS:
            yield node
        else:
            open_nodes += node.named_children


def _says(function: Node) -> bool:
    body = function.child_by_field_name("body")
    if body is None:
        return False
    if not body.type.endswith(("block", "body", "statement")):
        return True  # an arrow function's expression
    return any(child.type not in _EMPTY for child in body.named_children)
