"""A conversation: its turns so far, and the loop that a person types into."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from subllm.cli import console
from subllm.cli.ask import CHAT, Answer, Client, Output, ask
from subllm.errors import SubllmError

PROMPT = ">>> "
CONTINUED = "... "
FENCE = '"""'
HISTORY_LINES = 1000
HELP = f"""
/model NAME      go on with another model, or auto; alone: show it
/language NAME   go on in another language; alone: let the text tell
/clear           forget what was said
/exit            leave, as Ctrl-D does
{FENCE}              begins and ends a text of several lines
"""


class Conversation:
    """What was said, and how to go on. `model` and `language` may be changed between turns."""

    def __init__(
        self,
        client: Client,
        options: dict[str, Any],
        model: str,
        language: str | None,
        system: str | None,
    ) -> None:
        self._client = client
        self._options = options
        self._opening = [{"role": "system", "content": system}] if system else []
        self._turns: list[dict[str, str]] = []
        self.model = model
        self.language = language

    def ask(self, question: str, write: Callable[[str], None]) -> Answer:
        """One turn, streamed through `write`. A turn that fails or is broken off leaves
        the conversation as it was."""
        turns = [*self._turns, {"role": "user", "content": question}]
        body = {**self._options, "model": self.model, "messages": self._opening + turns}
        if self.language:
            body["language"] = self.language
        answer = ask(self._client, CHAT, body, write)
        self._turns = [*turns, {"role": "assistant", "content": answer.text}]
        return answer

    def clear(self) -> None:
        self._turns = []


def converse(conversation: Conversation, home: Path) -> None:
    """Ask and answer until /exit or Ctrl-D. Errors are shown and the loop goes on."""
    console.note("Type /help for help, Ctrl-D to leave.")
    with _line_editing(home / "run" / "chat-history"):
        while True:
            try:
                text = _read()
            except EOFError:
                console.note("")
                return
            except KeyboardInterrupt:
                console.note("\nCtrl-D leaves.")
                continue
            if text.startswith("/"):
                if not _obey(conversation, text):
                    return
            elif text:
                _turn(conversation, text)


def _turn(conversation: Conversation, text: str) -> None:
    output = Output()
    try:
        answer = conversation.ask(text, output.write)
    except KeyboardInterrupt:
        output.end()
        console.note("stopped; this turn is forgotten")
    except SubllmError as error:
        output.end()
        console.error(str(error))
    else:
        output.end()
        console.note(answer.line)


def _obey(conversation: Conversation, text: str) -> bool:
    """Carry out a /command; False when it ends the conversation."""
    name, _, value = text.partition(" ")
    value = value.strip()
    match name:
        case "/exit" | "/quit" | "/bye":
            return False
        case "/clear":
            conversation.clear()
            console.note("forgotten")
        case "/model":
            conversation.model = value or conversation.model
            console.note(f"model: {conversation.model}")
        case "/language":
            conversation.language = value or None
            console.note(f"language: {value or 'as the text tells'}")
        case "/help" | "/?":
            console.note(HELP.strip("\n"))
        case _:
            console.note(f"{name} is not known; /help lists what is")
    return True


def _read() -> str:
    """What was typed, of several lines between two fences. Raises EOFError."""
    line = input(PROMPT).strip()
    if not line.startswith(FENCE):
        return line
    lines = [line.removeprefix(FENCE)]
    while FENCE not in lines[-1]:
        lines.append(input(CONTINUED))
    lines[-1] = lines[-1].partition(FENCE)[0]
    return "\n".join(lines).strip()


@contextlib.contextmanager
def _line_editing(history: Path) -> Iterator[None]:
    """Arrow keys and a history that outlives the conversation, where the platform has them."""
    try:
        import readline
    except ImportError:  # Windows
        yield
        return
    with contextlib.suppress(OSError):
        readline.read_history_file(history)
    readline.set_history_length(HISTORY_LINES)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            history.parent.mkdir(parents=True, exist_ok=True)
            history.touch(mode=0o600)
            readline.write_history_file(history)
