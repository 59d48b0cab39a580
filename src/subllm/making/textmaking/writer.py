"""A dense base writes: many tasks at once on one engine, each with draws of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from subllm.engine.request import Engine, Request, SamplingParams
from subllm.making.textmaking.ending import function_end
from subllm.making.textmaking.maker import Maker
from subllm.making.textmaking.raw_answers import RawAnswer
from subllm.making.textmaking.tasks import MOST_TOKENS, Form, Task
from subllm.models.catalog.prompt import PromptSpec
from subllm.models.tables.seeded import key
from subllm.models.text import fim
from subllm.models.text.chat_prompt import encode_chat
from subllm.models.text.chat_template import ChatTemplate
from subllm.models.text.hole_end import Hole
from subllm.models.text.looping import looping
from subllm.models.text.tokenizer import Tokenizer

CONTEXT = 2560  # tokens of the longest request with its answer
_FENCE = "\n```"
# What comes after a Python function; the others end with a brace.
_STOPS = {
    "python": ("\ndef ", "\nclass ", "\nif __name__", "\nprint(", "\nassert", "\n#", "\n@",
               _FENCE, "\nfrom ", "\nimport "),
    "java": (_FENCE,),
    "cpp": (_FENCE, "\nint main"),
    "javascript": (_FENCE, "\nconsole.", "\nmodule.", "\nexport "),
}  # fmt: skip


@dataclass(frozen=True)
class Draws:
    """How answers are sampled. The first of several temperatures is used most."""

    temperatures: tuple[float, ...] = (0.8, 0.8, 0.8, 0.3)
    top_p: float = 0.95
    top_k: int = 64  # without one, top_p looks at the whole vocabulary, at half the speed
    seed: int = 0


class Asker:
    """Requests for one model."""

    def __init__(
        self, tokenizer: Tokenizer, prompt: PromptSpec, draws: Draws, context: int = CONTEXT
    ) -> None:
        """Raises WeightsError for a chat template that does not compile."""
        source = tokenizer.chat_template
        self._template = (
            ChatTemplate(source, tokenizer.bos_token, tokenizer.eos_token) if source else None
        )
        self._fim = prompt.fim
        self._tokenizer = tokenizer
        self._draws = draws
        self._context = min(context, prompt.context_length)

    @property
    def context(self) -> int:
        """Tokens that the longest request with its answer has."""
        return self._context

    @property
    def cannot(self) -> dict[Form, str]:
        """Forms that the model cannot write, and what it has not for them."""
        lacks: dict[Form, str] = {}
        if self._template is None:
            lacks |= dict.fromkeys(("chat", "tests", "edit"), "chat template")
        if self._fim is None:
            lacks["fim"] = "fill-in-the-middle markers"
        return lacks

    def request(self, task: Task) -> Request | None:
        """None for a task that is too long to be asked."""
        begun: tuple[int, ...] = ()
        hole = None
        if task.answer == "hole":
            assert self._fim is not None
            ids, begun = fim.at_cursor(self._fim, self._tokenizer, task.prefix, task.suffix)
            hole = Hole.between(task.prefix, task.suffix)
        elif task.request:
            assert self._template is not None
            messages = [{"role": "user", "content": task.request}]
            ids = tuple(encode_chat(self._template, self._tokenizer, messages))
        else:
            ids = tuple(self._tokenizer.encode_plain(task.prefix, bos=None))
        if len(ids) + len(begun) > self._context - MOST_TOKENS[task.answer]:
            return None
        draws = self._draws
        drawn = key("text", draws.seed, task.id)
        params = SamplingParams(
            temperature=draws.temperatures[drawn % len(draws.temperatures)],
            top_p=draws.top_p,
            top_k=draws.top_k,
            max_tokens=MOST_TOKENS[task.answer],
            seed=drawn,
            stop=_stops(task),
        )
        return Request(task.id, ids, params, begun=begun, hole=hole)


def _stops(task: Task) -> tuple[str, ...]:
    """A model tuned for chat closes code with a fence and goes on to explain it."""
    if task.answer == "body":
        return _STOPS[task.tag]
    return (_FENCE,) if task.answer in ("rest", "hole") else ()


@dataclass
class _Running:
    task: Task
    text: str = ""
    tokens: int = 0

    def over(self, piece: str) -> bool:
        """Whether what has come, `piece` last, says all that is kept, or turns in circles."""
        if self.task.answer == "body" and self.task.tag != "python" and "\n" in piece:
            whole = self.task.prefix + self.text
            end = function_end(whole, self.task.tag, self.task.outer)
            if end is not None and whole[end - 1] == "\n":
                return True
        return looping(self.text)


def write(
    engine: Engine,
    asker: Asker,
    maker: Maker,
    by: str,
    *,
    together: int,
    enough: Callable[[], bool],
) -> Iterator[tuple[RawAnswer, bool]]:
    """Let the engine answer tasks of the maker until there is enough, `together` at once.
    Yields every answer and whether it was accepted.

    What still runs at the end is given up. Raises as `Engine.add` and `Maker.take`, and what a
    request failed with.
    """
    running: dict[str, _Running] = {}
    try:
        while not enough():
            _fill(engine, asker, maker, running, together)
            if not running:
                return
            for event in engine.step():
                one = running.get(event.request_id)
                if one is None:  # the last word of one that was given up
                    continue
                if event.error is not None:
                    raise event.error
                one.text += event.text
                over = event.finish_reason is None and one.over(event.text)
                if event.finish_reason is None and not over:
                    continue
                del running[event.request_id]
                if over:
                    engine.abort(event.request_id)
                answer = RawAnswer(
                    one.task, by, event.finish_reason == "stop", event.completion_tokens, one.text
                )
                yield answer, maker.take(answer)
    finally:
        for identity in running:
            engine.abort(identity)
        if running:
            engine.step()


def _fill(
    engine: Engine, asker: Asker, maker: Maker, running: dict[str, _Running], together: int
) -> None:
    """Ask until `together` tasks run, or there is no other."""
    while len(running) < together:
        task = maker.next()
        if task is None:
            return
        request = asker.request(task)
        if request is not None:
            engine.add(request)
            running[task.id] = _Running(task)
