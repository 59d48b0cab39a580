"""One question to a model: by a running server of this store, else in this process."""

from __future__ import annotations

import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from subllm.cli import console
from subllm.cli.server_client import ServerClient, Stream
from subllm.errors import EngineError, IncompleteError, ServerError, SubllmError, UsageError

if TYPE_CHECKING:
    from subllm.cli.context import Context

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"
SHORTEST = 0.01  # seconds that a rate can be told from

# What each reason means to a person.
REASONS = {
    "model": "named",
    "language": "language given",
    "path": "by the file's name",
    "fence": "by a code block's tag",
    "named": "by a language named in the text",
    "content": "by what the code looks like",
    "session": "the last language used",
    "fallback": "no sub-model fits better",
}
# ... and why a model drafts.
DRAFT_REASONS = {
    "language": "a smaller base's model of the language",
    "dense": "a smaller base",
    "general": "a smaller base's general model",
    "named": "named",
}


class Client(Protocol):
    """What answers: `ServerClient` or `LocalClient`."""

    def stream(self, path: str, body: dict[str, Any]) -> Stream: ...

    def close(self) -> None: ...


@contextmanager
def open_client(context: Context, *, local: bool = False) -> Iterator[Client]:
    """A running server of this store, the configured port's first; where there is none,
    or `local` is asked for, the models in this process. Raises NoModelError without any."""
    client: Client | None = None if local else _server(context)
    if client is None:
        context.require_models()
        from subllm.cli.local_client import LocalClient

        client = LocalClient(context)
    with closing(client):
        try:
            yield client
        except UsageError:
            context.require_models()  # a server without any calls it an unknown name
            raise


def _server(context: Context) -> ServerClient | None:
    from subllm.cli import daemon

    found = daemon.find(context.settings.home, context.settings.port)
    if found is None:
        return None
    client = ServerClient(found.url, context.api_key)
    if client.healthy():
        return client
    console.note(f"the server at {found.url} does not answer; answering without it")
    return None


@dataclass(frozen=True)
class Answer:
    """A whole answer, or what came of one that `error` ended. Times in seconds: to the first
    text, and in all. `draft` is the model that was chosen to draft; accepted and rejected are
    tokens that anything drafted."""

    model: str
    route: str
    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    first_seconds: float
    seconds: float
    draft: str | None = None
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0
    error: str | None = None

    @property
    def tokens_per_second(self) -> float | None:
        """Of decoding: the wait for the first token is not in it. None where too little
        time passed to tell."""
        spent = self.seconds - self.first_seconds
        if self.completion_tokens < 2 or spent < SHORTEST:
            return None
        return (self.completion_tokens - 1) / spent

    @property
    def line(self) -> str:
        """`qwen2.5-coder:0.5b-python (file name): 42 tokens, 51 tok/s, first after 0.31 s`"""
        count, rate = self.completion_tokens, self.tokens_per_second
        parts = [f"{count} token{'' if count == 1 else 's'}"]
        if self.finish_reason == "length":
            parts[0] += " (limit)"
        if rate is not None:
            parts.append(f"{rate:.{0 if rate > 20 else 1}f} tok/s")
        parts.append(f"first after {console.duration(self.first_seconds)}")
        return f"{self.model} ({REASONS.get(self.route, self.route)}): {', '.join(parts)}"

    def document(self) -> dict[str, Any]:
        rate = self.tokens_per_second
        return {
            **asdict(self),
            "tokens_per_second": None if rate is None else round(rate, 2),
            "complete": self.error is None,
        }


def ask(client: Client, path: str, body: dict[str, Any], write: Callable[[str], None]) -> Answer:
    """Stream one answer through `write`. Leaving early (an error, Ctrl-C) stops the work.

    Raises IncompleteError for an answer that ends without its end: the server is lost or fails,
    the engine fails after it has begun, or no reason to finish was given."""
    began = time.monotonic()
    first: float | None = None
    model = finish = ""
    pieces: list[str] = []
    usage: dict[str, Any] = {}
    request = {**body, "stream": True, "stream_options": {"include_usage": True}}
    failure: SubllmError | None = None
    stream = client.stream(path, request)
    try:
        with closing(stream.events) as events:
            for event in events:
                model = event.get("model", model)
                usage = event.get("usage") or usage
                for choice in event["choices"]:
                    text = choice["text"] if path == COMPLETIONS else choice["delta"].get("content")
                    finish = choice["finish_reason"] or finish
                    if text:
                        first = first or time.monotonic()
                        pieces.append(text)
                        write(text)
    except EngineError as error:
        if not pieces:
            raise  # nothing has begun, as where a model cannot be loaded
        failure = error
    except ServerError as error:
        failure = error
    ended = time.monotonic()
    if failure is None and not finish:
        failure = ServerError("the answer ended without a word of why; ask again")
    drafted = usage.get("completion_tokens_details", {})
    answer = Answer(
        model=model,
        route=stream.route,
        text="".join(pieces),
        finish_reason=finish,
        prompt_tokens=usage.get("prompt_tokens", 0),
        completion_tokens=usage.get("completion_tokens", 0),
        first_seconds=round((first or ended) - began, 4),
        seconds=round(ended - began, 4),
        draft=stream.draft,
        accepted_prediction_tokens=drafted.get("accepted_prediction_tokens", 0),
        rejected_prediction_tokens=drafted.get("rejected_prediction_tokens", 0),
        error=None if failure is None else str(failure),
    )
    if failure is not None:
        message = f"{failure} ({_came(answer.text)})"
        raise IncompleteError(message, answer.document()) from failure
    return answer


def _came(text: str) -> str:
    """`nothing of the answer came`, `12 characters of the answer came`"""
    if not text:
        return "nothing of the answer came"
    return f"{len(text)} character{'' if len(text) == 1 else 's'} of the answer came"


@contextmanager
def told_as_json(wanted: bool) -> Iterator[None]:
    """With `wanted`, what came of an answer that ended too early is printed as the document of
    `--json` before its error goes on."""
    try:
        yield
    except IncompleteError as error:
        if wanted:
            console.emit_json(error.partial)
        raise


def sampling(**options: Any) -> dict[str, Any]:
    """The part of a body that options set; what was not given is the model's matter."""
    return {name: value for name, value in options.items() if value not in (None, [])}


class Output:
    """Writes an answer as it comes. A terminal gets no control characters, and a line end
    at the end; a pipe gets exactly the text. As a context: also where an error ends it."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._last = "\n"

    def write(self, text: str) -> None:
        if self._terminal:
            text = "".join(
                char if char in "\n\t" or unicodedata.category(char) != "Cc" else "�"
                for char in text.replace("\r\n", "\n")
            )
        self._last = text[-1:] or self._last
        console.result(text, newline=False)

    def __enter__(self) -> Output:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, SubllmError):
            self.end()

    def end(self) -> None:
        if self._terminal and self._last != "\n":
            console.result("")


def read_text(source: str | Path) -> str:
    """The text of a file, or of stdin for "-". Bytes that are not UTF-8 become U+FFFD.
    Raises UsageError."""
    if str(source) == "-":
        return sys.stdin.buffer.read().decode("utf-8", "replace")
    try:
        return Path(source).read_bytes().decode("utf-8", "replace")
    except OSError as error:
        raise UsageError(
            f"{source} cannot be read ({error.strerror}); give the path of a text file"
        ) from error


def argument_text(text: str) -> str:
    """An argument as the shell gave it, with bytes that are not UTF-8 as U+FFFD."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
