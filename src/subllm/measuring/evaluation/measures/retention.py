"""What a sub-model has kept: the built-in problems, beside the dense base where it is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from subllm.measuring.evaluation.bench import Bench, TextSide
from subllm.measuring.evaluation.measures.dense import any_dense_of
from subllm.measuring.evaluation.measures.pass_at_k import Programs
from subllm.measuring.evaluation.records import Result
from subllm.models.store.names import model_name
from subllm.models.store.store import Store


class Retention(Programs):
    """pass@k of the built-in problems, and the share of it that is left of the dense base's."""

    def facts(self, store: Store, text: TextSide) -> dict[str, Any]:
        dense = store.names().get(model_name(text.base, "dense"), "")
        return {**super().facts(store, text), "dense": dense}

    def run(self, bench: Bench, model: str) -> Result:
        """As of any problems. Where the store has the dense base of the same model, figures
        also hold `retention`: that base's pass@k with the smallest k, the number of problems
        that it solves, the model's pass@k as a share of its, and the share of the problems it
        solves that the model solves too; a share is None where the dense base solves nothing.
        """
        result = super().run(bench, model)
        dense = any_dense_of(bench.store, model)
        if dense is None:
            return result
        bench.progress.note(f"the same for {dense}, to compare with")
        before = super().run(bench, dense)
        retention = what_is_left(dense, _solved(result), _solved(before))
        return replace(result, figures={**result.figures, "retention": retention})


Solved = tuple[float, Mapping[str, int]]


def what_is_left(dense: str, model: Solved, before: Solved) -> dict[str, Any]:
    """The figures of a comparison. Both sides: pass@k, and by problem how many samples pass."""
    (mine, passed), (theirs, known) = model, before
    solved = [one for one, count in known.items() if count]
    both = [one for one in solved if passed.get(one)]
    return {
        "dense": dense,
        "dense_pass": theirs,
        "dense_solved": len(solved),
        "ratio": mine / theirs if theirs else None,
        "kept": len(both) / len(solved) if solved else None,
    }


def _solved(result: Result) -> Solved:
    return result.figures["pass"][0]["value"], result.passed
