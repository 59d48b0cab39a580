"""Documents in the forms in which a model is served, as token ids."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

from subllm.errors import CalibrationError, UsageError
from subllm.making.calibration.functions import functions
from subllm.making.calibration.source import Document
from subllm.models.catalog.prompt import PromptSpec
from subllm.models.tables.seeded import key
from subllm.models.text import fim
from subllm.models.text.chat_prompt import encode_chat
from subllm.models.text.chat_template import ChatTemplate
from subllm.models.text.tokenizer import Tokenizer

# chat         the model's own template, the answer in a code fence
# instruction  the plain form of instruction data sets, for models of any family
# file         the text as it is
# function     each function of the text on its own, as after its signature
# fim          a random stretch of the text taken out, between the model's markers
Form = Literal["chat", "instruction", "file", "function", "fim"]

INSTRUCTION = (
    "Below is an instruction that describes a task. Write a response that appropriately "
    "completes the request.\n\n### Instruction:\n{instruction}\n\n### Output:\n"
)
# What separates documents in the training of one family or another, the plainest first:
# a model tuned for chat ends its turns with another token.
_END_OF_TEXT = (
    "<|endoftext|>",
    "<|end_of_text|>",
    "<｜end▁of▁sentence｜>",
    "</s>",
    "<eos>",
)
_FIM_LINES = 3  # fewer leave nothing on one side
_LONGEST_MIDDLE = 12  # lines


class Renderer:
    """Renders for one model."""

    def __init__(self, tokenizer: Tokenizer, prompt: PromptSpec, holes: float = 0.0) -> None:
        """holes: share of the documents that can have one which take the form fim, whichever is
        due. Raises WeightsError for a chat template that does not compile."""
        self.tokenizer = tokenizer
        self._fim, self._holes = prompt.fim, holes
        # The marker's ids, after which a hole is filled; none without the form fim.
        self.before_middle = tokenizer.encode(prompt.fim.middle, bos=False) if prompt.fim else []
        source = tokenizer.chat_template
        self._template = (
            ChatTemplate(source, tokenizer.bos_token, tokenizer.eos_token) if source else None
        )
        self.end = _end_of_text(tokenizer)

    def forms(self, document: Document) -> list[Form]:
        """The forms that this document can take for this model, at least one."""
        if document.turns:
            return ["chat"] if self._template else ["file"]
        if document.hole is not None:
            return ["fim"] if self._fim else ["file"]
        forms: list[Form] = []
        if document.instruction:
            forms += ["chat", "instruction"] if self._template else ["instruction"]
            if document.tag is None:
                return forms
        forms.append("file")
        if document.tag is not None:
            if functions(document.text, document.tag):
                forms.append("function")
            if self._fim and len(document.text.splitlines()) >= _FIM_LINES:
                forms.append("fim")
        return forms

    def encode(self, document: Document, turn: int) -> list[int]:
        """Token ids in the form that is due when the document is used for the
        `turn`-th time, from 0; each text in it is closed by the end-of-text token.

        The first form follows from the id, so that all are about equally frequent, and
        each further turn takes the next. Only markers of the form are read as special
        tokens, never the document's own text.
        """
        forms = self.forms(document)
        form = forms[(key("form", document.id) + turn) % len(forms)]
        if "fim" in forms and key("hole", document.id, turn) % 1000 < 1000 * self._holes:
            form = "fim"
        return self.encode_as(form, document, turn)

    def fills(self, ids: Sequence[int]) -> bool:
        """Whether a text that `encode` made has the form fim."""
        marker = self.before_middle
        if not marker:
            return False
        starts = (at for at, token in enumerate(ids) if token == marker[0])
        return any(list(ids[at : at + len(marker)]) == marker for at in starts)

    def encode_as(self, form: Form, document: Document, turn: int = 0) -> list[int]:
        """As `encode`, in a form of `forms(document)`."""
        if form == "chat":
            return self._closed(self._chat(document))
        if form == "instruction":
            prompt = INSTRUCTION.format(instruction=document.instruction)
            return self._closed(self._plain(prompt + document.text))
        if form == "function":
            parts = functions(document.text, document.tag or "")
            return [token for part in parts for token in self._closed(self._plain(part))]
        if form == "fim":
            return self._closed(self._fill(document, turn))
        text = "\n\n".join(content for _, content in document.turns) or document.text
        return self._closed(self._plain(text))

    def _closed(self, ids: list[int]) -> list[int]:
        if self.end is None or ids[-1:] == [self.end]:
            return ids
        return [*ids, self.end]

    def _plain(self, text: str) -> list[int]:
        return self.tokenizer.encode_plain(text, bos=None)

    def _chat(self, document: Document) -> list[int]:
        turns = document.turns or (
            ("user", document.instruction),
            ("assistant", _fenced(document.text, document.tag)),
        )
        messages = [{"role": role, "content": content} for role, content in turns]
        assert self._template is not None
        try:
            return encode_chat(
                self._template, self.tokenizer, messages, add_generation_prompt=False
            )
        except UsageError as error:
            raise CalibrationError(f"document {document.id}: {error}") from error

    def _fill(self, document: Document, turn: int) -> list[int]:
        assert self._fim is not None
        if document.hole is None:
            prefix, middle, suffix = split_middle(document.text, key("fim", document.id, turn))
        else:
            (start, end), text = document.hole, document.text
            prefix, middle, suffix = text[:start], text[start:end], text[end:]
        asked = fim.encode(self._fim, self.tokenizer, prefix, suffix)
        return [*asked, *self.tokenizer.encode_plain(middle)]


def _end_of_text(tokenizer: Tokenizer) -> int | None:
    """The token that separates documents; None for a tokenizer that has no such token."""
    ends = [end for text in _END_OF_TEXT if (end := tokenizer.id_of(text)) is not None]
    # A vocabulary may have the spelling of another family's token as plain text.
    for known in (tokenizer.eos_ids, tokenizer.special_ids):
        for end in ends:
            if end in known:
                return end
    return tokenizer.eos_ids[0] if tokenizer.eos_ids else None


def split_middle(text: str, seed: int) -> tuple[str, str, str]:
    """(prefix, middle, suffix) as where an editor asks for a completion. The middle is
    never blank, so the text must not be.

    Half of the middles are whole lines, the others begin inside a line, as when
    somebody is typing; short ones are more frequent than long ones.
    """
    # Its sequence is the same in every version of Python.
    draw = random.Random(seed).random  # noqa: S311
    lines = text.splitlines(keepends=True)
    written = [i for i, line in enumerate(lines) if line.strip()]
    first = written[int(draw() * len(written))]
    count = 1 + int(draw() ** 2 * min(_LONGEST_MIDDLE, len(lines) - first))
    start = sum(len(line) for line in lines[:first])
    end = start + sum(len(line) for line in lines[first : first + count])
    if draw() < 0.5:
        body = lines[first].rstrip()
        indent = len(body) - len(body.lstrip())
        start += indent + int(draw() * (len(body) - indent))
        end -= text[end - 1] == "\n"
    return text[:start], text[start:end], text[end:]


def _fenced(text: str, tag: str | None) -> str:
    if tag is None:
        return text
    ending = "" if text.endswith("\n") else "\n"
    return f"```{tag}\n{text}{ending}```"
