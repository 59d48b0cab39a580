"""What of a message is prose and what is code that nobody put between fences."""

from __future__ import annotations

import re

_FENCED = re.compile(r"^[ \t>]*(```|~~~)[^\n]*\n(.*?)(?:^[ \t>]*\1|\Z)", re.DOTALL | re.MULTILINE)
_OPENS = re.compile(r"[A-Za-z0-9\"'“(-]")
_SIGNS = re.compile(r"[{}()\[\];=<>&|$\\_*#@/]")
_STATEMENT = re.compile(
    r"(?:for|if|elif|else|while|def|class|try|except|finally|with|match|case|switch|do|import|from"
    r"|return|public|private|protected|package|using|function|const|let|var)\b"
)
_SENTENCE = re.compile(r"[A-Za-z][\w' ,-]*[.!?:]+$")


def split(text: str) -> tuple[str, str]:
    """(prose, code). Code is what stands between fences, where there are any, else the lines
    that do not read as sentences. The first and the last line count as prose in any case: there
    people ask."""
    if "```" in text or "~~~" in text:
        code = "\n".join(match[2] for match in _FENCED.finditer(text))
        return _FENCED.sub("\n", text), code
    lines = text.strip("\n").split("\n")
    is_prose = [_reads(line) for line in lines]
    prose = [line for at, line in enumerate(lines) if is_prose[at] or at in (0, len(lines) - 1)]
    code = "\n".join(line for line, one in zip(lines, is_prose, strict=True) if not one)
    return "\n".join(prose), code


def _reads(line: str) -> bool:
    if not line or line[0] in " \t" or not _OPENS.match(line):
        return not line.strip()
    words = line.count(" ") + 1
    if _STATEMENT.match(line) and not line.endswith(("?", ".")):
        return False
    if _SENTENCE.match(line):
        return True
    signs = len(_SIGNS.findall(line))
    if line.endswith((";", "{", "}", ",")) and signs:
        return False
    return words >= 4 and signs <= words // 5
