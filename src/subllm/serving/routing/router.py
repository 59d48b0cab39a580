"""From a request to a sub-model's name and the reason for it.

Rules, first match wins:

    model     the request names a sub-model
    language  the request states its language; one that nobody knows is refused
    path      a file path: stated, or after a file separator token of the prompt
    fence     the tag of a fenced code block
    named     a language named in the chat text, or what belongs to one (JUnit)
    content   what the code looks like
    session   the last language of this client
    fallback  the dense or the general model if there, else the one used last

In a chat the newest message that has a fence or a name decides, so that "now in
Java" wins over an older Python block; "translate this to Java" wins over the fence of what is to
be translated. Names count in prose only, not in code. A language without a sub-model goes to the
fallback: a stated language is never overruled by a guess.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from subllm.errors import NoModelError, UnknownNameError
from subllm.languages import (
    DENSE,
    GENERAL,
    LANGUAGES,
    UNSTATED,
    canonical,
    is_known,
    of_path,
)
from subllm.serving.routing.content import of_content
from subllm.serving.routing.detect import of_fences, of_prompt_path
from subllm.serving.routing.names import of_conversion, of_names
from subllm.serving.routing.prose import split
from subllm.serving.routing.sessions import Sessions

AUTO = "auto"

_CHAT = 12_000
"""Characters of the newest messages that are looked at."""
_SYSTEM = frozenset(("system", "developer"))
_GUESSES = 2
"""Messages whose code is looked at."""

Reason = Literal["model", "language", "path", "fence", "named", "content", "session", "fallback"]


@dataclass(frozen=True)
class SubModel:
    """A model that can be routed to. `base` is `family:size`.

    parameters  weights of its dense base
    bytes_read  of the packed weights it computes with, for each token
    likeness    share of its dense base's first choices that it has on held-out text, where
                that was measured
    """

    name: str
    base: str
    language: str
    tag: str = ""
    parameters: int = 0
    bytes_read: int = 0
    likeness: float | None = None

    @property
    def family(self) -> str:
        return self.base.partition(":")[0]


@dataclass(frozen=True)
class Message:
    role: str
    text: str


@dataclass(frozen=True)
class Query:
    """What a request tells. `prompt` and `suffix` are code or text to complete,
    `messages` a chat, `session` a key of `sessions.session_key`."""

    model: str | None = None
    language: str | None = None
    path: str | None = None
    prompt: str = ""
    suffix: str = ""
    messages: tuple[Message, ...] = ()
    session: str | None = None


@dataclass(frozen=True)
class Route:
    """`language` is what the request was found to be in, None when nothing told."""

    model: str
    language: str | None
    reason: Reason


class Router:
    """Chooses among `models()`. With several bases `auto` prefers `default_base`, then
    the others by name; within a base an untagged sub-model, then tags by name. A
    sub-model of the right language on another base beats a fallback."""

    def __init__(
        self,
        models: Callable[[], Sequence[SubModel]],
        sessions: Sessions,
        *,
        default_base: str = "",
    ) -> None:
        self._models = models
        self._sessions = sessions
        self._default_base = default_base
        self._last_used: str | None = None

    def ids(self) -> list[str]:
        """Every model id that a request may name, sorted; `auto` last."""
        models = self._models()
        return [*sorted({m.name for m in models} | {m.base for m in models}), AUTO]

    def check(self, name: str) -> str:
        """`name` when a request may use it; raises UnknownNameError."""
        ids = self.ids()
        if name not in ids:
            raise UnknownNameError("model", name, ids, "'subllm list' shows what is served")
        return name

    def route(self, query: Query) -> Route:
        """Raises UnknownNameError for a model name that is not served or a language that is none,
        NoModelError for any name when nothing is served."""
        models = self._models()
        check_language(query.language, models)
        asked = (query.model or AUTO).strip()
        exact = next((m for m in models if m.name == asked), None)
        if exact is not None:
            route = Route(exact.name, exact.language, "model")
        else:
            candidates = [m for m in models if asked in (AUTO, m.base)]
            if not models:
                raise NoModelError("there is no model to ask yet; run 'subllm extract python'")
            if not candidates:
                hint = "'subllm list' shows what is served"
                raise UnknownNameError("model", asked, self.ids(), hint)
            candidates.sort(key=self._preference)
            route = self._choose(query, candidates)
        self._remember(query, route)
        return route

    def language(self, query: Query, route: Route) -> str | None:
        """What the request is in, also where its model was named: by the request itself,
        else the last language of its session. None when nothing tells."""
        if route.reason != "model":
            return route.language
        for _, language in _evidence(query):
            return language
        last = self._sessions.get(query.session) if query.session else None
        return last.language if last else None

    def _preference(self, model: SubModel) -> tuple[bool, str, bool, str, str]:
        return (
            model.base != self._default_base,
            model.base,
            bool(model.tag),
            model.tag,
            model.name,
        )

    def _choose(self, query: Query, candidates: list[SubModel]) -> Route:
        last = self._sessions.get(query.session) if query.session else None
        language: str | None = None
        for reason, language in _evidence(query):
            if model := _with_language(candidates, language):
                return Route(model.name, language, reason)
            break
        if language is None and last is not None and last.language is not None:
            language = last.language
            if model := _with_language(candidates, language):
                return Route(model.name, language, "session")
        for reserve in (DENSE, GENERAL):
            if model := _with_language(candidates, reserve):
                return Route(model.name, language, "fallback")
        names = {model.name for model in candidates}
        for used in (last.model if last else None, self._last_used):
            if used in names and used is not None:
                return Route(used, language, "fallback")
        return Route(candidates[0].name, language, "fallback")

    def _remember(self, query: Query, route: Route) -> None:
        self._last_used = route.model
        if query.session:
            language = None if route.language == DENSE else route.language
            self._sessions.put(query.session, language, route.model)


def check_language(name: str | None, models: Sequence[SubModel]) -> None:
    """Raises UnknownNameError for what is neither a language nor a model's domain."""
    if name and not is_known(name):
        served = {model.language for model in models}
        if canonical(name) not in served:
            known = sorted({*LANGUAGES, *served})
            raise UnknownNameError("language", name, known, "leave it out where it is not known")


def _with_language(candidates: Sequence[SubModel], language: str) -> SubModel | None:
    return next((model for model in candidates if model.language == language), None)


def _evidence(query: Query) -> Iterator[tuple[Reason, str]]:
    """What the request itself says about its language, strongest first."""
    if query.language and (stated := canonical(query.language)) not in UNSTATED:
        yield "language", stated
    path = of_path(query.path) if query.path else None
    if language := path or of_prompt_path(query.prompt):
        yield "path", language
    if language := of_fences(query.prompt):
        yield "fence", language
    yield from _chat_evidence(query.messages)
    if (query.prompt or query.suffix) and (language := of_content(query.prompt, query.suffix)):
        yield "content", language


def _chat_evidence(messages: tuple[Message, ...]) -> Iterator[tuple[Reason, str]]:
    codes: list[str] = []
    for message, text in _newest(messages):
        prose, code = split(text)
        asked = message.role != "assistant"
        if asked and (language := of_conversion(prose)):
            yield "named", language
        elif language := of_fences(text):
            yield "fence", language
        elif asked and (language := of_names(prose)):
            yield "named", language
        elif code.strip() and message.role not in _SYSTEM:
            codes.append(code)
    for code in codes[:_GUESSES]:
        if language := of_content(code):
            yield "content", language


def _newest(messages: tuple[Message, ...]) -> Iterator[tuple[Message, str]]:
    """The dialogue backwards, then what was said before it, with the part of each text that is
    looked at: of a long one the beginning and the end, where people ask."""
    dialogue = [message for message in messages if message.role not in _SYSTEM]
    opening = [message for message in messages if message.role in _SYSTEM]
    left = _CHAT
    for message in [*reversed(dialogue), *reversed(opening)]:
        text = message.text
        if len(text) > left:
            text = f"{text[: left // 2]}\n{text[len(text) - left // 2 :]}"
        left -= len(text)
        if text.strip():
            yield message, text
        if left < 2:
            return
