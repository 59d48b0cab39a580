"""The dense model that a model is compared with."""

from __future__ import annotations

from subllm.errors import UsageError
from subllm.store.names import model_name
from subllm.store.store import Store


def dense_of(store: Store, model: str) -> str:
    """The dense model of the same base. Raises UsageError when it is not there, or was made
    from another base."""
    base = store.model(model).base
    name = model_name(base.name, "dense")
    if name not in store.names():
        raise UsageError(f"there is no dense base to agree with; run 'subllm add {base.name}'")
    if store.model(name).base.manifest != base.manifest:
        raise UsageError(f"{name} was made from another base than {model}; add that one again")
    return name
