"""Which language a piece of text is written in, by weighted features.

Each feature is a pattern with the weights it gives to languages; hits count up to a
cap, so that a long file does not drown in one construct. The answer needs a minimum
score and a clear lead, else it is None: a wrong sub-model is worse than the fallback.

Whoever sends a request chooses the text, and a pattern holds the interpreter while it
runs: what leads a line is spaces and tabs, never any white space (quadratic in blank
lines), and what may repeat between two anchors is bounded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

HEAD_CHARS = 6_000  # imports and declarations
TAIL_CHARS = 12_000  # what surrounds the cursor
MAX_HITS = 3
MIN_SCORE = 1.5
MIN_LEAD = 1.3  # the best score over the second best


@dataclass(frozen=True)
class Feature:
    pattern: re.Pattern[str]
    weights: dict[str, float]


def _f(pattern: str, **weights: float) -> Feature:
    return Feature(re.compile(pattern, re.MULTILINE), weights)


_NAME = r"[A-Za-z_$][\w$]*"

FEATURES: tuple[Feature, ...] = (
    # Python
    _f(r"^[ \t]*(?:async )?def \w+\(", python=3),
    _f(r"^[ \t]*class \w+(?:\([\w., =\[\]]*\))?:", python=3),
    _f(r"^(?:from [\w.]+ import\b|import [\w.]+(?: as \w+)?(?:, *[\w.]+)*[ \t]*$)", python=2.5),
    _f(r"^[ \t]*(?:if|elif|for|while|with|except|match|case)\b[^{;]*:[ \t]*(?:#.*)?$", python=2),
    _f(r"^[ \t]*(?:else|try|finally|except):[ \t]*$", python=2),
    _f(r"\bself\.\w|\bcls\.\w", python=1.5),
    _f(r"\bself\b", python=0.5, rust=0.5),
    _f(r"\b__\w+__\b", python=1.5),
    _f(r'^[ \t]*[rRfF]?"""', python=1.5),
    _f(r"\bin range\(|\blen\(|\benumerate\(|\bisinstance\(", python=1.5, go=0.3),
    _f(r"(?<![\w.])print\(", python=0.9, kotlin=0.3, swift=0.3),
    _f(r"\bNone\b|\bTrue\b|\bFalse\b", python=1),
    _f(r"\blambda \w*(?:, *\w+)*:|\bnot in\b|\bis not\b|\belif\b", python=1.5),
    _f(r"[:>] *(?:int|str|float|bool|list\[|dict\[|List\[|Dict\[|Optional\[)", python=1),
    _f(r"(?<![\w'\"])f['\"]", python=1),
    _f(  # noqa: S604  (a language, no process)
        r"^[ \t]*#(?!\s*(?:include|define|if|ifdef|ifndef|endif|pragma|else|undef)\b)(?!\[)[ \w!]",
        python=0.7,
        ruby=0.5,
        shell=0.5,
    ),
    _f(r"\A#!.*\bpython", python=5),
    _f(r"^[ \t]*return\b[^;{]*[^;{,(\[\s][ \t]*$", python=0.5, ruby=0.3, go=0.3, kotlin=0.3),
    _f(r"\[[^\[\]]* for \w+ in [^\[\]]*\]", python=2),
    _f(r"^\w+ = [\w.]+\([^;{]*\)[ \t]*$", python=0.5, ruby=0.3),
    # Java
    _f(r"^[ \t]*import (?:static )?[a-z_]\w*(?:\.\w+)*(?:\.\*)?;", java=3.5),
    _f(r"^package [\w.]+;", java=3.5),
    _f(r"\bSystem\.(?:out|err|in)\b", java=3.5),
    _f(
        r"\bpublic (?:static |final |abstract |sealed )*(?:class|interface|enum|record)\b",
        java=2.5,
        csharp=2,
    ),
    _f(
        r"^[ \t]*(?:public|private|protected) (?:static |final |abstract |synchronized |<\w+> )*"
        r"[\w<>\[\], ?.]+ \w+\s*(?:\(|=|;)",
        java=2.5,
        csharp=1.8,
    ),
    _f(r"@(?:Override|Test|Autowired|Deprecated|SuppressWarnings|FunctionalInterface)\b", java=3),
    _f(r"\bString\[\] args\b|\bString\.\w+\(", java=2.5),
    _f(r"\bnew (?:Array|Linked|Hash|Tree|Priority|String|Scanner|Thread|Illegal)\w*[<(]", java=2),
    _f(
        r"\b(?:Array|Linked)?List<\w|\b(?:Hash|Tree)?Map<\w|\b(?:Hash|Tree)?Set<\w|\bOptional<\w",
        java=1.2,
        csharp=0.6,
        kotlin=0.4,
    ),
    _f(r"(?:^|[(,]\s*|\s)String \w+\s*[=;,)]", java=1.5),
    _f(r"\bfinal [\w<>\[\]]+ \w+|\bthrows \w+|\binstanceof\b|\bboolean \w", java=1.5),
    _f(r"\)\s*throws \w|\bsynchronized\b|\bInteger\b|\bLong\b", java=1.2),
    _f(r"^[ \t]*class \w+ (?:extends \w+ )?(?:implements [\w, ]+ )?\{", java=1, javascript=0.9),
    _f(r"\bimplements \w", java=1.5, javascript=0.5, php=0.5),
    _f(r"\.(?:equals|length|charAt|hashCode|stream|getClass)\(\)?", java=0.8),
    _f(r"\.length\(\)|\.isEmpty\(\)", java=0.8, cpp=0.3),
    # C and C++
    _f(r"^[ \t]*#\s*include\s*[<\"]", cpp=4.5),
    _f(r"^[ \t]*#\s*(?:define|ifndef|ifdef|pragma|endif)\b", cpp=3),
    _f(r"\bstd::\w", cpp=3.5),
    _f(r"\busing namespace\b|\bnamespace \w+(?:::\w+)* *\{", cpp=3),
    _f(r"\b(?:cout|cerr|clog)\s*<<|\bcin\s*>>", cpp=3),
    _f(r"^[ \t]*template\s*<", cpp=3),
    _f(r"\b(?:constexpr|nullptr|noexcept|typename|static_cast|dynamic_cast|decltype)\b", cpp=2),
    _f(r"\b(?:size_t|u?int(?:8|16|32|64)_t|unsigned (?:int|char|long)|long long)\b", cpp=2),
    _f(r"\bconst (?:auto|[\w:]+(?:<[^<>]*>)?)\s*[&*]|\b\w+(?:<[^<>]*>)?&& \w", cpp=2),
    _f(r"\bauto[&*]? \w+\s*[=:]", cpp=1.5),
    _f(r"\b(?:vector|unordered_map|unique_ptr|shared_ptr|pair)<", cpp=1.8),
    _f(r"^[ \t]*(?:public|private|protected):", cpp=3),
    _f(r"\bint main\s*\(", cpp=2.5),
    _f(r"\b(?:printf|scanf|malloc|sizeof|strlen|memcpy|free)\s*\(", cpp=1.5),
    _f(r"^[ \t]*(?:typedef |struct \w+\s*\{|union \w+\s*\{)", cpp=1.5),
    _f(r"\b(?:int|char|double|float|void|bool|string|\w+_t)\s*[*&]\s*\w", cpp=1.5),
    _f(r"\w->\w", cpp=0.8, php=0.3),
    _f(r"\w::~?\w+\(", cpp=1.2, rust=0.8, php=0.3),
    _f(r"\bstring \w+\s*[=;,)]", cpp=0.8, csharp=0.9),
    _f(r"^[ \t]*(?:bool|float|unsigned|char|string) \w+\s*\(", cpp=1.8),
    # what Java and C++ share
    _f(
        r"^[ \t]*(?:static |inline )?(?:int|long|double|float|void|char) \w+\s*\([^)]*\)\s*\{",
        cpp=1.2,
        java=0.8,
        csharp=0.5,
    ),
    _f(r"\bfor\s*\(\s*int \w+\s*=", cpp=0.8, java=0.8, csharp=0.6),
    _f(
        r"^[ \t]*(?:int|long|double|float|char) \w+(?:\[\w*\])?\s*[=;]",
        cpp=0.7,
        java=0.6,
        csharp=0.5,
    ),
    _f(r"\bint\[\] \w|\bnew int\[", java=1.5, csharp=1),
    # JavaScript and TypeScript
    _f(rf"\b(?:const|let|var)\s+(?:{_NAME}|\{{[^}}]*\}}|\[[^\]]*\])\s*=[^=]", javascript=2),
    _f(
        r"^[ \t]*(?:const|let|var) \w+\s*:\s*[A-Za-z]",
        javascript=1,
        swift=0.8,
        kotlin=0.5,
        rust=0.5,
    ),
    _f(r"\bfunction\s*\*?\s*[\w$]*\s*\([^${}]{0,300}?\)\s*\{", javascript=2.5, php=0.3),
    _f(r"=>\s*(?:\{|\(|[\w$`'\"!])", javascript=1.2, csharp=0.6, rust=0.4, scala=0.5),
    _f(r"(?:\)|(?<![\w$])[\w$]{1,60})\s{0,8}=>\s{0,8}\{", javascript=1.2, csharp=0.4),
    _f(r"\bconsole\.(?:log|error|warn|info|assert)\b", javascript=3.5),
    _f(r"\brequire\(['\"`]|\bmodule\.exports\b|\bexports\.\w", javascript=3),
    _f(r"^[ \t]*import\b[^;\n]*\bfrom\s*['\"]|^[ \t]*import\s*['\"][^'\"]+['\"];?", javascript=3.5),
    _f(r"^[ \t]*export (?:default|const|function|class|async|type|interface|let)\b", javascript=3),
    _f(r"===|!==", javascript=2, php=0.6),
    _f(r"\b(?:document|window|localStorage|process\.env|JSON)\.\w", javascript=2),
    _f(r"\b(?:async function|new Promise|typeof|undefined)\b", javascript=1.5),
    _f(r"\bawait \w", javascript=0.7, python=0.5, csharp=0.4),
    _f(r"`[^`\n]*\$\{", javascript=2),
    _f(
        r"\.(?:map|filter|forEach|reduce|then|push)\((?:async )?(?:\(|\w+ *=>|function)",
        javascript=2,
    ),
    _f(r"\bMath\.\w+\(", javascript=0.5, java=0.5, csharp=0.3),
    _f(r"[\w?)]\s*:\s*(?:string|number|boolean|any|void|unknown)\b(?!\s*\w+\s*[;(])", javascript=2),
    _f(
        r"^[ \t]*(?:interface|type) \w+(?:<\w+>)? (?:=|\{|extends)",
        javascript=1.2,
        java=0.5,
        go=0.2,
    ),
    _f(r"@(?:param|returns?) \{", javascript=2.5),
    _f(r"^[ \t]*return \(?\s*<\w|className=|/>\s*\)?;?$", javascript=2),
    _f(r"\A#!.*\bnode\b", javascript=5),
    # Others: recognised so that they are not mistaken for one of the four.
    _f(
        r"\bfn \w+(?:<[^>]*>)?\(|\blet mut \w|\bimpl(?:<[^>]*>)? \w|\bpub (?:fn|struct|enum|mod)\b",
        rust=4,
    ),
    _f(r"\bprintln!\(|#\[derive\(|\buse (?:std|crate)::|&mut \w|&str\b|\bVec<", rust=3),
    _f(r"^package \w+[ \t]*$|^func (?:\(\w+ \*?\w+\) )?\w+\(|\w := \w|\bfmt\.\w", go=3.5),
    _f(r"<\?php|\$this->|^[ \t]*\$\w+ = |\bfunction \w+\([^)]*\$\w", php=4.5),
    _f(r"^[ \t]*def \w+[?!]?(?:\(.*\))?[ \t]*$|\bend[ \t]*$|\bdo \|\w+\||^[ \t]*puts ", ruby=3),
    _f(
        r"^using [\w.]+;|^namespace [\w.]+;?[ \t]*$|\bConsole\.Write|\{ get; (?:private )?set; \}",
        csharp=4.5,
    ),
    _f(r"\bfun \w+\(|\bval \w+ ?[:=]|\bdata class\b|\bprintln\(", kotlin=2.5),
    _f(r"\bfunc \w+\([^)]*\) -> |\bguard let\b|\bif let \w+ = ", swift=3),
    _f(r"^[ \t]*(?:SELECT\b.*\bFROM\b|INSERT INTO\b|CREATE TABLE\b|UPDATE \w+ SET\b)", sql=5),
    _f(r"(?i)<!doctype html|^[ \t]*<(?:html|head|body|div)\b", html=3),
    _f(  # noqa: S604
        r"\A#!.*\b(?:ba|z)?sh\b|\bfi$|\besac$|^[ \t]*echo |\$\{?\w+\}?\"|\[\[ .* \]\]",
        shell=2.5,
    ),
)

# A comment that names the language is weak evidence: it may speak of another one.
_COMMENT = re.compile(r"^[ \t]*(?:#|//|/?\*+|\"\"\")[^\n]*", re.MULTILINE)
_NAMED = {
    "python": re.compile(r"(?i)\bpython\b"),
    "java": re.compile(r"(?i)\bjava\b"),
    "cpp": re.compile(r"(?i)\bc\+\+|\bcpp\b"),
    "javascript": re.compile(r"(?i)\b(?:javascript|typescript|node\.?js)\b"),
}
_NAMED_WEIGHT = 1.0

# Markers of fill-in-the-middle prompts hide line starts.
_MARKERS = re.compile(
    r"<[|｜][^<>|｜\n]{1,30}[|｜]>|<(?:fim_\w+|fim-\w+|PRE|SUF|MID|EOT|file_sep|repo_name)>"
)


def scores(text: str) -> dict[str, float]:
    """The score of each language that has any evidence in `text`."""
    if len(text) > HEAD_CHARS + TAIL_CHARS:
        text = text[:HEAD_CHARS] + "\n" + text[-TAIL_CHARS:]
    text = _MARKERS.sub("\n", text)
    totals: dict[str, float] = {}
    for feature in FEATURES:
        hits = 0
        for _ in feature.pattern.finditer(text):
            hits += 1
            if hits == MAX_HITS:
                break
        # The first hit counts in full, repeats for less.
        factor = (0.0, 1.0, 1.4, 1.6)[hits]
        if factor:
            for language, weight in feature.weights.items():
                totals[language] = totals.get(language, 0.0) + factor * weight
    comments = "\n".join(_COMMENT.findall(text))
    for language, pattern in _NAMED.items():
        if pattern.search(comments):
            totals[language] = totals.get(language, 0.0) + _NAMED_WEIGHT
    return totals


def of_content(text: str) -> str | None:
    """The language that `text` is written in, None when there is no clear answer."""
    ranked = sorted(scores(text).items(), key=lambda item: (-item[1], item[0]))
    if not ranked or ranked[0][1] < MIN_SCORE:
        return None
    if len(ranked) > 1 and ranked[0][1] < MIN_LEAD * ranked[1][1]:
        return None
    return ranked[0][0]
