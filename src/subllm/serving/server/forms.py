"""What a reply must be made of, from a JSON schema and tools to a constraint on tokens."""

from __future__ import annotations

import json
from collections.abc import Callable

from subllm.engine.constraint import Constraint
from subllm.errors import UsageError
from subllm.serving.server.errors import bad_request
from subllm.serving.server.generation import Generation
from subllm.serving.server.models import TextSide
from subllm.serving.server.tools import BEGIN, grammar

LONGEST = 1 << 17  # characters of JSON, of all schemas together

Constraints = Callable[[], Constraint | None]
"""A new one for each choice."""


def knows_tools(text: TextSide) -> bool:
    """Whether the model's chat template tells it of tools, in the form that is understood."""
    source = text.tokenizer.chat_template or ""
    return "tools" in source and BEGIN in source


def constraints(asked: Generation, text: TextSide) -> Constraints:
    """Raises ApiError for a schema that cannot be followed, or a model that cannot be told of
    tools."""
    use, form = asked.tools, asked.form
    if use is None and form is None:
        return lambda: None
    field = "tools" if use is not None else "response_format"
    if asked.ignore_eos:
        raise bad_request(f"ignore_eos cannot be combined with {field}", "ignore_eos")
    schemas = [form, *(dict(tool.parameters) for tool in (use.tools if use else ()))]
    if len(json.dumps(schemas)) > LONGEST:
        raise bad_request(f"{field}: more than {LONGEST} characters; send less", field)
    if use is not None and not knows_tools(text):
        raise bad_request(
            "tools: this model's chat template knows no tools; leave them out",
            "tools",
            "unsupported_parameter",
        )
    from subllm.models.text.grammar import (
        schema_grammar,  # llguidance: with the first that is asked for
    )

    try:
        if use is not None:
            rules = grammar(use, form)
        else:
            assert form is not None
            rules = schema_grammar(form)
        grammars = text.grammars
        first: list[Constraint] = [grammars.matcher(rules)]
    except UsageError as error:
        raise bad_request(f"{field}: {error}", field) from error
    return lambda: first.pop() if first else grammars.matcher(rules)
