"""A conversation as token ids, in which only the template writes special tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from subllm.errors import UsageError
from subllm.models.text.chat_template import ChatTemplate
from subllm.models.text.tokenizer import Tokenizer

_PRIVATE_USE = range(0xE000, 0xF900)


def encode_chat(
    template: ChatTemplate,
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool = True,
    **extras: Any,
) -> list[int]:
    """The prompt's ids. Special tokens that messages or extras spell stay ordinary text:
    they are cut apart by a character that none of them has, where encoding starts anew.

    The template writes the bos token itself. Raises UsageError as `ChatTemplate.render`.
    """
    given = {"messages": list(messages), "extras": extras}
    used = set().union(*map(set, _strings(given)))
    mark = next((chr(code) for code in _PRIVATE_USE if chr(code) not in used), None)
    if mark is None:
        raise UsageError("the messages hold every private-use character; send ordinary text")
    cut = _mapped(given, lambda text: tokenizer.cut(text, mark))
    rendered = template.render(
        cut["messages"], add_generation_prompt=add_generation_prompt, **cut["extras"]
    )
    return tokenizer.encode_cut(rendered, mark)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield key
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """A copy with every string changed, keys too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(key): _mapped(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_mapped(item, change) for item in value]
    return value
