"""How a problem is put to a model: as text to go on with, in a chat, or with a hole."""

from __future__ import annotations

from typing import Literal

from subllm.errors import UsageError
from subllm.measuring.evaluation.problems import INFILL, Problem
from subllm.models.catalog.prompt import PromptSpec
from subllm.models.text import fim
from subllm.models.text.chat_prompt import encode_chat
from subllm.models.text.chat_template import ChatTemplate
from subllm.models.text.hole_end import TELLING
from subllm.models.text.tokenizer import Tokenizer

Form = Literal["raw", "chat", "fim"]
Asked = Literal["raw", "chat", "auto"]

TITLES = {"python": "Python", "java": "Java", "cpp": "C++", "javascript": "JavaScript"}
_FUNCTION = "Complete this {title} function. Answer with the whole function in one code block."
_PROGRAM = "Write {title} code for this task. Answer with one code block."


class Prompter:
    """Prompts for one model in one form. Thread-safe."""

    def __init__(self, tokenizer: Tokenizer, spec: PromptSpec, form: Form) -> None:
        """Raises UsageError for a form that the model has no template or markers for,
        WeightsError for a chat template that does not compile."""
        self.form = form
        self._tokenizer = tokenizer
        self._fim = spec.fim
        self._template: ChatTemplate | None = None
        if form == "chat":
            source = tokenizer.chat_template
            if not source:
                raise UsageError("this model has no chat template; use --format raw")
            self._template = ChatTemplate(source, tokenizer.bos_token, tokenizer.eos_token)
        if form == "fim" and spec.fim is None:
            raise UsageError("this model has no fill-in-the-middle markers; choose another task")

    @property
    def facts(self) -> dict[str, str]:
        """What decides the prompts beside the form."""
        if self.form != "fim":
            return {}
        ends = f"at lines that follow, with {TELLING} letters, or outside of the block"
        return {"at the cursor": f"{fim.AHEAD} lines", "ends": ends}

    def ids(self, problem: Problem) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The prompt's token ids, and those of its end that the completion begins with
        (`Request.begun`). Only template and markers put special tokens in."""
        tokenizer = self._tokenizer
        if self._template is not None:
            messages = [{"role": "user", "content": chat_message(problem)}]
            return tuple(encode_chat(self._template, tokenizer, messages)), ()
        if self.form == "raw":
            return tuple(tokenizer.encode_plain(problem.prompt, bos=None)), ()
        assert self._fim is not None
        return fim.at_cursor(self._fim, tokenizer, problem.prompt, problem.suffix)


def choose_form(asked: Asked, problem: Problem, tokenizer: Tokenizer) -> Form:
    """The form that is used: holes are filled with markers; "auto" is the chat template
    where the model has one."""
    if problem.kind == INFILL:
        return "fim"
    if asked == "auto":
        return "chat" if tokenizer.chat_template else "raw"
    return asked


def chat_message(problem: Problem) -> str:
    """What the user says in a chat."""
    title = TITLES.get(problem.language, problem.language)
    if problem.asked:
        return f"{_PROGRAM.format(title=title)}\n\n{problem.asked}"
    asked = _FUNCTION.format(title=title)
    return f"{asked}\n\n```{problem.language}\n{problem.prompt.rstrip()}\n```"
