"""The built-in problems at the end of `extract` and `recover`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from subllm.cli import console

if TYPE_CHECKING:
    from subllm.cli.context import Context
    from subllm.measuring.evaluation.kept import Kept
    from subllm.progress import Progress

LONGEST_SECONDS = 15 * 60.0
"""What the problems may take at the end of a command, as estimated. Longer ones are left to
whoever asks for them by `subllm eval`."""


def ask_problems(context: Context, name: str, progress: Progress) -> Kept | None:
    """What the sub-model `name`, which is stored, and its dense base solve.

    None, with a note that says why, where that cannot be told or takes long, and without one
    for a domain that has no problems. KeyboardInterrupt is left to the caller.
    """
    from subllm.errors import SubllmError
    from subllm.measuring.evaluation.bench import open_bench
    from subllm.measuring.evaluation.kept import LANGUAGES, plan_asking

    language = context.store.model(name).language
    if language not in LANGUAGES:
        return None
    later = f"'subllm eval {name} --task builtin' asks them"
    try:
        with open_bench(context.store, context.settings, progress, quiet=True) as bench:
            asking = plan_asking(bench, name)
            took = console.duration(round(asking.seconds))
            if asking.seconds > LONGEST_SECONDS:
                progress.note(f"{language} problems left out, they take about {took}; {later}")
                return None
            whom = f"{name} and {asking.dense}" if asking.dense else name
            progress.note(
                f"{asking.asked} small {language} problems for {whom}, at most about {took}; "
                "Ctrl-C leaves them out"
            )
            return asking.run(bench)
    except SubllmError as error:
        progress.note(f"{language} problems left out: {error}; {later}")
        return None


def interrupted(name: str) -> str:
    """What to say of Ctrl-C while problems are asked."""
    return f"problems left out; {name} is stored, 'subllm eval {name} --task builtin' goes on"
