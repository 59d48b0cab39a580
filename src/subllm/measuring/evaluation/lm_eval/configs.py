"""Our tasks as configurations of the harness.

Where the harness has a task of the same name, its prompts, filters and metrics are taken as
they are; only where the rows come from and how many worked examples stand before a question
is ours. The translation tasks are ours, with the prompt of the harness's WMT tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from subllm.errors import BenchmarkError
from subllm.measuring.evaluation.domains import DomainTask
from subllm.measuring.evaluation.lm_eval.rows import in_memory
from subllm.measuring.evaluation.meteor import Meteor
from subllm.models.tables.files import Row

# Folders of the harness's tasks; looking through all of them would take seconds.
_FOLDERS = {
    "openbookqa": "openbookqa",
    "winogrande": "winogrande",
    "boolq": "super_glue/boolq",
    "arc_easy": "arc",
    "arc_challenge": "arc",
    "hellaswag": "hellaswag",
    "gsm8k": "gsm8k",
}


def build(
    task: DomainTask, rows: Sequence[Row], shots: Sequence[Row], meteor: Meteor | None
) -> Any:
    """The harness's task over these rows. `meteor` scores translations.

    Raises BenchmarkError for rows that the task cannot read: all are looked at, because the
    harness looks at the first and finds out about others when the model has answered.
    """
    tables = in_memory({task.split: rows, **({task.shots_split: shots} if shots else {})})
    config = {
        "task": task.name,
        "custom_dataset": lambda **_: tables,
        "training_split": None,
        "validation_split": None,
        "test_split": task.split,
        "fewshot_split": task.shots_split if shots else None,
        "num_fewshot": task.shots,
        # The same examples for every question: an engine computes them once.
        "fewshot_config": {"sampler": "first_n"} if shots else None,
        "repeats": task.samples,
    }
    number = 0
    try:
        if meteor is not None:
            built = _load(config | _translation(task, meteor), folder=None)
        else:
            built = _load(config, folder=_FOLDERS[task.name])
        for document in built.test_docs():
            number += 1
            _check(built, document)
    except (LookupError, ValueError, TypeError, jinja2.TemplateError) as error:
        line = (str(error) or type(error).__name__).partition("\n")[0]
        raise BenchmarkError(
            f"the harness cannot read question {max(number, 1)} of {task.name} ({line}); it "
            f"needs rows as in {task.repo}"
        ) from error
    return built


def _check(built: Any, document: Row) -> None:
    """Raises what the harness raises, or ValueError for an answer that is no choice."""
    text, target = built.doc_to_text(document), built.doc_to_target(document)
    if built.config.doc_to_choice is None:
        return
    answer = text if isinstance(text, int) else target  # where contexts are compared, it is text
    choices = built.doc_to_choice(document)
    if answer not in (range(len(choices)) if isinstance(answer, int) else choices):
        raise ValueError(f"answer {answer!r} of {len(choices)} choices")


def _load(config: Mapping[str, Any], folder: str | None) -> Any:
    """A task, by what the harness has of it under `folder`, changed by `config`."""
    import lm_eval.tasks
    from lm_eval.tasks import TaskManager

    name = config["task"]
    if folder is None:
        manager = TaskManager(include_defaults=False)
        return manager.load(dict(config))["tasks"][name]
    root = next(iter(lm_eval.tasks.__path__))
    manager = TaskManager(include_path=f"{root}/{folder}", include_defaults=False)
    # Members of a group, unlike tasks alone, may be changed.
    return manager.load({"group": "subllm", "task": [dict(config)]})["tasks"][name]


def _translation(task: DomainTask, meteor: Meteor) -> dict[str, Any]:
    """French to English; the best of the answers counts."""

    def score(row: Row, answers: list[list[str]]) -> dict[str, float]:
        return {"meteor": meteor.best(row["translation"]["en"], answers[0])}

    return {
        "output_type": "generate_until",
        "doc_to_text": 'French phrase: {{translation["fr"]}}\nEnglish phrase:',
        "doc_to_target": ' {{translation["en"]}}',
        "process_results": score,
        "metric_list": [{"metric": "meteor", "aggregation": "mean", "higher_is_better": True}],
        "filter_list": [
            {"name": "none", "filter": [{"function": "take_first_k", "k": task.samples}]}
        ],
        "generation_kwargs": {
            "until": ["\n"],
            "do_sample": task.samples > 1,
            "temperature": task.temperature,
        },
        "metadata": {"version": 1.0},
    }
