"""lm-evaluation-harness on our engine: the optional part `eval`.

    model    the harness's model interface, answered by an engine
    options  the harness's generation options as sampling parameters
    answers  what a model answered before, by digest
    rows     a task's data, from the hub or a file
    configs  our tasks as the harness's configurations
    run      one task, measured

Only `model` and `run` import the harness, which takes two seconds; whoever needs them calls
`require` first. The harness fetches nothing: it gets its rows from us.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version

from subllm.errors import MissingExtraError


def require() -> None:
    """Raises MissingExtraError where the harness is not installed."""
    try:
        importlib.import_module("lm_eval.api.model")
    except ImportError as error:
        raise MissingExtraError(
            f"this task needs lm-evaluation-harness ({error}); install it with: "
            "pip install 'subllm[eval]'"
        ) from error


def harness_version() -> str:
    """The installed one, as results name it."""
    return f"lm_eval {version('lm_eval')}"
