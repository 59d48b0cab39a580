"""From what a model wrote to the program that is run."""

from __future__ import annotations

import re

from subllm.measuring.evaluation.problems import FUNCTION, INFILL, Problem
from subllm.measuring.evaluation.prompts import Form
from subllm.measuring.evaluation.stops import FencedBlock, OneLine, StopRule, function_rule
from subllm.models.text.lexing import depth, events

_BLOCK = re.compile(r"^[ \t]*```[ \t]*([\w+#-]*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.M)
_TAGS = {
    "python": ("python", "py", "python3"),
    "java": ("java",),
    "cpp": ("cpp", "c++", "cc", "c"),
    "javascript": ("javascript", "js", "node"),
}
# The name of the function whose brace comes next.
_NAMES = {
    "java": re.compile(r"(\w+)\s*\("),
    "cpp": re.compile(r"(\w+)\s*\("),
    "javascript": re.compile(r"(?:const|let|var|function)\s+(\w+)"),
}
_DEFINES = {
    "python": r"^[ \t]*(?:async[ \t]+)?def[ \t]+{name}\b",
    "java": r"\b{name}\s*\([^;{{}}]*\)[^;{{}}]*\{{",
    "cpp": r"\b{name}\s*\([^;{{}}]*\)[^;{{}}]*\{{",
    "javascript": r"\b(?:function\s+{name}\b|(?:const|let|var)\s+{name}\s*=)",
}
_IMPORTS = {
    "java": re.compile(r"^[ \t]*import\b[^\n]*\n?", re.M),
    "cpp": re.compile(r"^[ \t]*(?:#[ \t]*include|using[ \t]+namespace)\b[^\n]*\n?", re.M),
    "javascript": re.compile(r"^[^\n]*\brequire\([^\n]*\n?", re.M),
}
_MAIN = {
    "java": re.compile(r"^[ \t]*(?:public\s+)?class\s+Main\b[^{]*\{", re.M),
    "cpp": re.compile(r"^[ \t]*int\s+main\s*\([^)]*\)\s*\{", re.M),
}


def stop_rule(problem: Problem, form: Form) -> StopRule | None:
    """What ends a completion of `problem`; None where only stop strings or the model do."""
    if form == "chat":
        return FencedBlock()
    if problem.kind == INFILL:
        return OneLine(problem.suffix) if problem.id.startswith("SingleLine") else None
    if problem.kind == FUNCTION and not problem.stops:
        return function_rule(problem.language, problem.head)
    return None


def program_of(problem: Problem, text: str, form: Form) -> str:
    """The program that `text`, a completion after its stop rule, makes."""
    if form == "chat":
        return _from_reply(problem, code_block(text, problem.language))
    if problem.kind == INFILL and problem.id.startswith("SingleLine"):
        # A line that the model ended by stopping.
        ended = text.endswith("\n") or problem.suffix.startswith("\n")
        return problem.program(text if ended else text + "\n")
    if problem.kind == FUNCTION and not problem.stops:
        text += _closing(problem, text)
    return problem.program(text)


def code_block(reply: str, language: str) -> str:
    """The first code block of the language, else the first of any, else the whole reply."""
    blocks = [(match[1].lower(), match[2]) for match in _BLOCK.finditer(reply)]
    for tag, code in blocks:
        if tag in _TAGS.get(language, (language,)):
            return code
    return blocks[0][1] if blocks else reply


def function_name(problem: Problem) -> str:
    """The function that the prompt begins; "" when it cannot be told."""
    if problem.entry:
        return problem.entry
    head, language = problem.head, problem.language
    if language == "python":
        names = re.findall(r"^[ \t]*(?:async[ \t]+)?def[ \t]+(\w+)", head, re.M)
        return names[-1] if names else ""
    names = _NAMES[language].findall(head[: _function_brace(problem)])
    return names[-1] if names else ""


def _closing(problem: Problem, text: str) -> str:
    """The braces of what encloses the function, when the function itself is closed."""
    if problem.language == "python":
        return ""
    opened = depth(problem.head, problem.language)
    missing = depth(problem.head + text, problem.language)
    return "\n" + "}" * missing if 0 < missing < opened else ""


def _from_reply(problem: Problem, code: str) -> str:
    """A chat's code block is mostly the whole function, sometimes only its body."""
    language = problem.language
    if problem.kind != FUNCTION:
        return problem.program(code)
    if not _defines(code, function_name(problem), language):
        return problem.program(code + _closing(problem, code))
    if language in _MAIN:
        code = _without(_MAIN[language], code, language)
    if language == "java":
        code = re.sub(r"\bpublic\s+(?=(?:final\s+)?class\b)", "", code)
        if not re.search(r"\bclass\s+\w+", code):
            code = f"class Solution {{\n{code}\n}}\n"
    return f"{_prologue(problem, code)}{code}\n{problem.test}"


def _prologue(problem: Problem, code: str) -> str:
    """What the prompt has before its function and the answer does not repeat."""
    head, language = problem.head, problem.language
    if language == "python":
        name = re.escape(function_name(problem))
        found = list(re.finditer(_DEFINES["python"].format(name=name), head, re.M))
        return head[: found[-1].start()] if found else ""
    imports = "".join(_IMPORTS[language].findall(head))
    if language == "java":
        return imports
    # Helpers: whole functions before the one that is asked for.
    start = 0
    level = 0
    for event in events(head, language):
        level += {"open": 1, "close": -1, "line": 0}[event.kind]
        if event.kind == "close" and level == 0:
            start = event.at + 1
    helpers = _IMPORTS[language].sub("", head[:start])
    repeated = any(
        _defines(code, name, language) for name in set(_NAMES[language].findall(helpers))
    )
    return imports if repeated or not start else f"{imports}{helpers}\n"


def _defines(code: str, name: str, language: str) -> bool:
    pattern = _DEFINES[language].format(name=re.escape(name))
    return bool(name) and re.search(pattern, code, re.M) is not None


def _function_brace(problem: Problem) -> int:
    """Index of the brace that opens the function."""
    stack: list[int] = []
    for event in events(problem.head, problem.language):
        if event.kind == "open":
            stack.append(event.at)
        elif event.kind == "close" and stack:
            stack.pop()
    return stack[-1] if stack else len(problem.head)


def _without(opening: re.Pattern[str], code: str, language: str) -> str:
    """The code without the block that `opening` begins; tests bring their own main."""
    match = opening.search(code)
    if match is None:
        return code
    level = 0
    for event in events(code, language, match.end() - 1):
        level += {"open": 1, "close": -1, "line": 0}[event.kind]
        if event.kind == "close" and level == 0:
            return code[: match.start()] + code[event.at + 1 :]
    return code[: match.start()]
