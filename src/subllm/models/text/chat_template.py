"""A model's own chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from subllm.errors import UsageError, WeightsError
from subllm.models.text.template_sandbox import MAX_OUTPUT, Ranges, SandboxEnvironment

MAX_TEMPLATE = 1 << 18  # characters


def one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


class ChatTemplate:
    """A compiled template. Thread-safe."""

    def __init__(self, source: str, bos_token: str = "", eos_token: str = "") -> None:
        """Raises WeightsError for a template that does not compile."""
        if len(source) > MAX_TEMPLATE:
            raise WeightsError(
                f"the chat template has {len(source)} characters, at most {MAX_TEMPLATE} are run"
            )
        try:
            self._template = SandboxEnvironment().from_string(source)
        except Exception as error:  # the compiler is not made for hostile input
            raise WeightsError(
                f"the model's chat template does not compile: {one_line(error)}"
            ) from error
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        **extras: Any,
    ) -> str:
        """The prompt for these messages (`role`, `content`, ...).

        extras  further variables of the template (tools, enable_thinking, ...)
        Raises UsageError for messages that the template refuses, or an output of more
        than MAX_OUTPUT characters.
        """
        if not messages:
            raise UsageError("messages is empty; send at least one message")
        pieces: list[str] = []
        size = 0
        variables = {
            "tools": None,
            **extras,
            "range": Ranges(),
            **self._tokens,
            "messages": [dict(message) for message in messages],
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            for piece in self._template.generate(variables):
                size += len(piece)
                if size > MAX_OUTPUT:
                    raise UsageError(
                        f"the rendered chat exceeds {MAX_OUTPUT} characters; send less"
                    )
                pieces.append(piece)
        except UsageError:
            raise
        except jinja2.exceptions.SecurityError as error:
            raise UsageError(
                f"the model's chat template does what the sandbox forbids ({error}); "
                "use the completions endpoint"
            ) from error
        except Exception as error:  # whatever the template's code runs into
            raise UsageError(
                f"the model's chat template refuses these messages: {one_line(error)}"
            ) from error
        return "".join(pieces)
