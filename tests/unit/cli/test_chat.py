"""`subllm chat`: one turn in a pipe, a conversation on a terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from subllm.cli.ask import CHAT
from subllm.cli.conversation import Conversation
from subllm.cli.server_client import Stream
from subllm.errors import EngineBusyError, IncompleteError
from subllm.models.store.store import Store

from .conftest import Live
from .samples import Ran
from .tiny_store import BASE, greedy, token

Command = Callable[..., Ran]


def rendered(*turns: tuple[str, str]) -> list[int]:
    """The ids of a chat prompt, by hand."""
    ids: list[int] = []
    for role, text in turns:
        ids += [token("<|im_start|>"), *f"{role}\n{text}".encode(), token("<|im_end|>"), 10]
    return [*ids, token("<|im_start|>"), *b"assistant\n"]


def test_one_turn(tiny: Store, subllm: Command, piped: Callable[[bytes], None]) -> None:
    expected = greedy(tiny, rendered(("system", "Be brief."), ("user", "hi in Java")), 9)
    ran = subllm("chat", "hi in Java", "--system", "Be brief.", "-n", "9")
    assert (ran.status, ran.out) == (0, expected)
    assert ran.err.startswith(f"{BASE}-java (by a language named in the text): 9 tokens")
    for arguments in ([], ["-"]):
        piped(b"hi in Java\n")
        assert subllm("chat", *arguments, "--system", "Be brief.", "-n", "9").out == expected


def test_json_and_language(live: Live, subllm: Command) -> None:
    here = subllm("chat", "hi", "-l", "python", "-n", "6", "--json", "--local")
    there = subllm("chat", "hi", "-l", "python", "-n", "6", "--json")
    assert (
        here.json["text"] == there.json["text"] == greedy(live.store, rendered(("user", "hi")), 6)
    )
    assert here.json["model"] == there.json["model"] == f"{BASE}-python"
    assert here.json["route"] == there.json["route"] == "language"
    assert here.err == there.err == ""


class Scripted:
    """A client that answers as told and keeps the bodies."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.bodies: list[dict[str, Any]] = []

    def stream(self, path: str, body: dict[str, Any]) -> Stream:
        assert path == CHAT
        self.bodies.append(body)
        return Stream("language", self._events(self.answers.pop(0)))

    def _events(self, answer: str | Exception) -> Any:
        if isinstance(answer, Exception):
            yield {"model": "m", "choices": [{"delta": {"content": "half"}, "finish_reason": None}]}
            raise answer
        yield {"model": "m", "choices": [{"delta": {"content": answer}, "finish_reason": "stop"}]}
        yield {"model": "m", "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 1}}

    def close(self) -> None:
        pass


def test_turns_add_up_and_a_failed_one_does_not_count() -> None:
    client = Scripted("one", EngineBusyError("full; wait"), "two", "three")
    chat = Conversation(client, {"max_tokens": 3}, "auto", None, "sys")
    assert chat.ask("a", str).text == "one"
    with pytest.raises(IncompleteError, match=r"full; wait \(4 characters of the answer came\)"):
        chat.ask("b", str)
    chat.model, chat.language = "other", "java"
    assert chat.ask("c", str).completion_tokens == 1
    chat.clear()
    chat.ask("d", str)
    said = [[m["content"] for m in body["messages"]] for body in client.bodies]
    assert said == [
        ["sys", "a"],
        ["sys", "a", "one", "b"],
        ["sys", "a", "one", "c"],
        ["sys", "d"],
    ]
    assert [body["model"] for body in client.bodies] == ["auto", "auto", "other", "other"]
    assert [body.get("language") for body in client.bodies] == [None, None, "java", "java"]
    assert all(body["max_tokens"] == 3 for body in client.bodies)


class Terminal:
    """A process on a pseudo terminal."""

    def __init__(self, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "subllm", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "dumb"},
            start_new_session=True,
        )
        os.close(slave)
        self.shown = ""

    def until(self, text: str, after: int = 0, more: int = 0) -> str:
        """Read until `text` is shown after position `after`, with `more` characters at
        least; what is shown there."""
        deadline = time.monotonic() + 120
        while text not in self.shown[after:] or len(self.shown) < after + more:
            ready, _, _ = select.select([self._master], [], [], deadline - time.monotonic())
            assert ready, f"{text!r} did not come in {self.shown!r}"
            try:
                self.shown += os.read(self._master, 65536).decode().replace("\r\n", "\n")
            except OSError:
                raise AssertionError(f"it ended without {text!r}: {self.shown!r}") from None
        return self.shown[after:]

    def shows(self, text: str, seconds: float) -> bool:
        """Whether `text` is shown within `seconds`."""
        deadline = time.monotonic() + seconds
        while text not in self.shown and time.monotonic() < deadline:
            if select.select([self._master], [], [], 0.1)[0]:
                self.shown += os.read(self._master, 65536).decode().replace("\r\n", "\n")
        return text in self.shown

    def type(self, text: str, until: str, more: int = 0) -> str:
        start = len(self.shown)
        os.write(self._master, text.encode())
        return self.until(until, start, more)

    def close(self) -> int:
        status = self.process.wait(120)
        os.close(self._master)
        return status


def test_a_conversation_on_a_terminal(live: Live) -> None:
    terminal = Terminal("chat", "-n", "5")
    terminal.until(">>> ")
    first = greedy(live.store, rendered(("user", "hi in Java")), 5)
    shown = terminal.type("hi in Java\n", ">>> ")
    assert first in shown
    assert f"{BASE}-java (by a language named in the text): 5 tokens" in shown
    second = greedy(
        live.store,
        rendered(("user", "hi in Java"), ("assistant", first), ("user", "two\nlines")),
        5,
    )
    terminal.type('"""two\n', "... ")
    assert second in terminal.type('lines"""\n', ">>> ")
    assert "model: nope" in terminal.type("/model nope\n", ">>> ")
    assert "unknown model 'nope'" in terminal.type("x\n", ">>> ")
    assert f"model: {BASE}-python" in terminal.type(f"/model {BASE}-python\n", ">>> ")
    assert "forgotten" in terminal.type("/clear\n", ">>> ")
    shown = terminal.type("hi\n", ">>> ")
    assert greedy(live.store, rendered(("user", "hi")), 5) in shown
    assert f"{BASE}-python (named)" in shown
    assert "/language NAME" in terminal.type("/help\n", ">>> ")
    assert "is not known" in terminal.type("/what\n", ">>> ")
    terminal.type("\x04", "")
    assert terminal.close() == 0
    history = live.store.root / "run" / "chat-history"
    assert "hi in Java" in history.read_text()
    assert stat.S_IMODE(history.stat().st_mode) == 0o600


def test_ctrl_c_stops_the_answer_and_not_the_conversation(live: Live) -> None:
    terminal = Terminal("chat", "-n", "8000")  # 900 can be over before the signal arrives
    terminal.until(">>> ")
    terminal.type("go on\n", "go on\n", more=20)
    os.killpg(terminal.process.pid, signal.SIGINT)
    terminal.until("stopped; this turn is forgotten")
    terminal.until(">>> ", terminal.shown.index("stopped"))
    # A signal that arrives after the prompt is written and before the line editor waits is
    # only looked at with the next event, so one that comes this early may need another.
    for _ in range(10):
        os.killpg(terminal.process.pid, signal.SIGINT)
        if terminal.shows("Ctrl-D leaves.", 1.0):
            break
    terminal.until("Ctrl-D leaves.")
    terminal.type("/exit\n", "/exit")
    assert terminal.close() == 0


def test_without_a_question_and_without_a_terminal(
    live: Live, subllm: Command, piped: Callable[[bytes], None]
) -> None:
    piped(b" \n")
    ran = subllm("chat")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("error: nothing to answer")
