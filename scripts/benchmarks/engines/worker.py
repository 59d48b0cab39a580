"""One engine in a process of its own, asked and answering in JSON lines.

A worker script prints {"ready": facts} once it is loaded and warm, then answers every line
{"measure": name, "with": {argument: value}} on its input with {"value": number} or
{"error": text}, and ends with its input. A measurement of many parts gives them as they come,
in lines {"part": value} before its value. Standard output holds nothing else; what a worker
logs goes to a file.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from types import GeneratorType
from typing import IO, Any

MEASURES = ("decode", "prefill", "batch_decode", "first_token")
"""tokens/s of one sequence, prompt tokens/s, tokens/s of eight together, seconds."""

END_SECONDS = 10.0


class WorkerError(Exception):
    """What a worker could not do, in a line."""


class Worker:
    """A running worker. `facts` is what it said of itself when it was ready."""

    def __init__(self, name: str, command: list[str], environment: Mapping[str, str]) -> None:
        """Starts it and waits until it is ready. Raises WorkerError."""
        self.name = name
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in close)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, **environment},
        )
        try:
            self.facts: dict[str, Any] = self._answer()["ready"]
        except BaseException:
            self.close()
            raise

    def measure(self, what: str, **arguments: Any) -> Any:
        """One of MEASURES, or what else this worker knows, once. Raises WorkerError."""
        self._ask(what, arguments)
        return self._answer()["value"]

    def parts(self, what: str, **arguments: Any) -> Iterator[Any]:
        """The parts of a measurement, as they come. Raises WorkerError. A caller who stops
        before the last part must close the worker: it goes on regardless."""
        self._ask(what, arguments)
        while "part" in (answer := self._answer()):
            yield answer["part"]

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _ask(self, what: str, arguments: dict[str, Any]) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(json.dumps({"measure": what, "with": arguments}) + "\n")
            stdin.flush()
        except BrokenPipeError:
            raise WorkerError(self._last_words()) from None

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def _last_words(self) -> str:
        self._process.wait()
        self._log.seek(0)
        lines = [line for line in self._log.read().splitlines() if line.strip()]
        return lines[-1] if lines else f"ended with status {self._process.returncode}"


def serve(output: IO[str], requests: IO[str], measures: Mapping[str, Any], facts: Any) -> None:
    """The worker's side: answers from `measures`, functions by name; generators give parts."""
    print(json.dumps({"ready": facts}), file=output, flush=True)
    for line in requests:
        request = json.loads(line)
        try:
            value = measures[request["measure"]](**request.get("with", {}))
            if isinstance(value, GeneratorType):
                for part in value:
                    print(json.dumps({"part": part}), file=output, flush=True)
                value = None
            answer: dict[str, Any] = {"value": value}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
        print(json.dumps(answer), file=output, flush=True)


def own_output() -> IO[str]:
    """Standard output for `serve` alone: what libraries print there goes to the log."""
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return output
