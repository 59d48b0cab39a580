"""The names of languages: canonical ones, aliases, file extensions.

A language is a plain name. Four have calibration packs; any other calibrated domain
may have a sub-model too, so names that are not known here pass through.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from subllm.errors import UnknownNameError


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


LANGUAGES = ("python", "java", "cpp", "javascript")
GENERAL = "general"
DENSE = "dense"  # reserved for the unpruned base
UNSTATED = frozenset({"", "auto", "text", "unknown"})  # editors send it for "no idea"

# Editors' language ids and what people write. C is served by the C++ sub-model and
# TypeScript by the JavaScript one: their nearest relatives.
ALIASES: dict[str, str] = {
    "py": "python",
    "python2": "python",
    "python3": "python",
    "py3": "python",
    "pyi": "python",
    "cython": "python",
    "ipython": "python",
    "jupyter": "python",
    "c++": "cpp",
    "cc": "cpp",
    "cxx": "cpp",
    "hpp": "cpp",
    "h": "cpp",
    "c": "cpp",
    "cuda": "cpp",
    "cuda-cpp": "cpp",
    "arduino": "cpp",
    "js": "javascript",
    "jsx": "javascript",
    "mjs": "javascript",
    "cjs": "javascript",
    "node": "javascript",
    "nodejs": "javascript",
    "node.js": "javascript",
    "ecmascript": "javascript",
    "javascriptreact": "javascript",
    "ts": "javascript",
    "tsx": "javascript",
    "typescript": "javascript",
    "typescriptreact": "javascript",
    "vue": "javascript",
    "svelte": "javascript",
    "c#": "csharp",
    "cs": "csharp",
    "golang": "go",
    "rs": "rust",
    "rb": "ruby",
    "kt": "kotlin",
    "sh": "shell",
    "bash": "shell",
    "zsh": "shell",
    "shellscript": "shell",
    "yml": "yaml",
    "md": "markdown",
    "objective-c": "objectivec",
    "objective-cpp": "objectivec",
    "objectivecpp": "objectivec",
    "plaintext": "text",
    "txt": "text",
}

# More that editors send as a file's language: known, so that they fall back.
_IDS = words(
    "abap ada apex asciidoc asm assembly astro awk bat batch bazel bibtex blade c3 caddyfile "
    "clojure cmake cobol coffeescript commonlisp crystal csv cypher d dockercompose dockerfile "
    "dotenv elm emacs-lisp erb fish fortran fsharp gdscript git-commit git-rebase gitcommit "
    "gitignore gleam glsl gn graphql haml handlebars haxe hcl hlsl http idris ignore ini jade "
    "java-properties jinja jinja2 json5 jsonc jsonl jsonnet just kdl lean less lisp llvm log m4 "
    "makefile matlab mdx meson mojo nasm nginx nim nix objective-c objective-cpp objectivec "
    "objectivecpp odin org pascal perl6 pgsql plsql postcss powershell prisma prolog properties "
    "proto proto3 protobuf pug puppet purescript qml racket raku razor reason regex rescript "
    "restructuredtext robotframework rst sass scheme scss search-result shaderlab slim smalltalk "
    "solidity sparql starlark stylus svg system-verilog systemverilog tcl templ terraform "
    "terraform-vars thrift toml tsql typst v vala vb verilog vhdl vim viml vimscript vlang vyper "
    "wasm wat wgsl xquery xsl xslt yang zig zsh"
)

EXTENSIONS: dict[str, str] = {
    **dict.fromkeys(("py", "pyi", "pyw", "pyx", "ipynb"), "python"),
    **dict.fromkeys(("java", "jsh"), "java"),
    **dict.fromkeys(
        ("cpp", "cc", "cxx", "c++", "hpp", "hh", "hxx", "h++", "h", "c", "ipp", "tpp", "inl"), "cpp"
    ),
    **dict.fromkeys(("cu", "cuh", "ino"), "cpp"),
    **dict.fromkeys(("js", "jsx", "mjs", "cjs", "ts", "tsx", "mts", "cts"), "javascript"),
    **dict.fromkeys(("vue", "svelte"), "javascript"),
    # Languages without a pack: known, so that they fall back instead of being guessed.
    "cs": "csharp",
    "go": "go",
    "rs": "rust",
    "rb": "ruby",
    "php": "php",
    "kt": "kotlin",
    "kts": "kotlin",
    "swift": "swift",
    "scala": "scala",
    "lua": "lua",
    **dict.fromkeys(("pl", "pm"), "perl"),
    "mm": "objectivec",
    **dict.fromkeys(("ml", "mli"), "ocaml"),
    "erl": "erlang",
    **dict.fromkeys(("groovy", "gradle"), "groovy"),
    "r": "r",
    "jl": "julia",
    "dart": "dart",
    "hs": "haskell",
    "ex": "elixir",
    "exs": "elixir",
    "zig": "zig",
    "sql": "sql",
    "html": "html",
    **dict.fromkeys(("css", "scss", "less"), "css"),
    **dict.fromkeys(("sh", "bash", "zsh"), "shell"),
    **dict.fromkeys(("yaml", "yml"), "yaml"),
    "json": "json",
    "toml": "toml",
    "xml": "xml",
    **dict.fromkeys(("md", "rst"), "markdown"),
    "tex": "latex",
}

FILE_NAMES: dict[str, str] = {
    "sconstruct": "python",
    "sconscript": "python",
    "jakefile": "javascript",
    "dockerfile": "dockerfile",
    "makefile": "makefile",
    "cmakelists.txt": "cmake",
}


_KNOWN = frozenset(
    (*LANGUAGES, GENERAL, DENSE, *UNSTATED, *ALIASES.values(), *EXTENSIONS, *EXTENSIONS.values())
) | frozenset((*FILE_NAMES.values(), *_IDS))


def canonical(name: str) -> str:
    """`"C++"` -> `"cpp"`, `".tsx"` -> `"javascript"`; an unknown name is returned in
    lower case."""
    key = name.strip().lower().removeprefix(".")
    return ALIASES.get(key, key)


def is_known(name: str) -> bool:
    """Whether `name` is a language, one of its other names or file extensions, or says that
    none is known."""
    return canonical(name) in _KNOWN


def parse_languages(text: str) -> tuple[str, ...]:
    """`"python,js"` -> `("python", "javascript")`, `"all"` -> LANGUAGES, "" -> ().

    Raises UnknownNameError for one that is not in LANGUAGES."""
    if text == "all":
        return LANGUAGES
    names = tuple(dict.fromkeys(canonical(part) for part in text.split(",") if part.strip()))
    for name in names:
        if name not in LANGUAGES:
            raise UnknownNameError("language", name, LANGUAGES)
    return names


def of_path(path: str) -> str | None:
    """The language of a file name or path, of POSIX or Windows; None when unknown."""
    name = PurePosixPath(path.strip().replace("\\", "/")).name.lower()
    if name in FILE_NAMES:
        return FILE_NAMES[name]
    _, dot, extension = name.rpartition(".")
    return EXTENSIONS.get(extension) if dot else None
