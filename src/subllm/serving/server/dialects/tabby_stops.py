"""Where a completion in the middle of a file has gone too far: the next thing of its top level.

Tabby's clients name the language and leave the stops to the server.
"""

from __future__ import annotations

from subllm.languages import canonical, of_path

_HASH, _SLASHES = "#", "//"
_TOP_LEVEL: dict[str, tuple[str, str]] = {
    "python": (_HASH, "def class from import async @"),
    "java": (_SLASHES, "import package public private abstract final class interface enum record"),
    "cpp": (
        _SLASHES,
        "#include #define namespace template class struct enum union typedef static extern using",
    ),
    "javascript": (
        _SLASHES,
        "import export function async class const let var interface type enum",
    ),
    "go": (_SLASHES, "package import func type var const"),
    "rust": (_SLASHES, "fn pub use mod impl trait struct enum static const unsafe extern"),
    "csharp": (_SLASHES, "using namespace public internal class interface struct enum record"),
    "kotlin": (_SLASHES, "package import fun class interface object data sealed enum private"),
    "ruby": (_HASH, "require module class def"),
}


def stops_of(language: str | None, path: str | None) -> tuple[str, ...]:
    """Stop strings, none for a language that is not known here. The path counts where the
    language does not say."""
    name = canonical(language) if language else ""
    if name not in _TOP_LEVEL:
        name = (of_path(path) if path else None) or ""
    if name not in _TOP_LEVEL:
        return ()
    comment, words = _TOP_LEVEL[name]
    spelt = (word if word == "@" else f"{word} " for word in words.split())
    return (f"\n{comment}", *(f"\n{word}" for word in spelt))
