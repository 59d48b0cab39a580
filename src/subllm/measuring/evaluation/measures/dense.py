"""The dense model that a model is compared with."""

from __future__ import annotations

from subllm.errors import StoreError, UsageError
from subllm.models.store.names import DENSE, model_name
from subllm.models.store.store import Store


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


def any_dense_of(store: Store, model: str) -> str | None:
    """`dense_of` or, where that is not there, another dense model of the very same base, as
    those with a tag are. None for none, for the model itself, and for a dense model whose base
    has no other name. Raises UnknownNameError, StoreError for the model."""
    own = store.model(model)
    names = store.names()
    usual = model_name(own.base.name, DENSE)
    wanted = [usual]
    if own.language != DENSE:
        wanted += [name for name in names if name != usual]
    for name in wanted:
        digest = names.get(name)
        if digest is None or digest == names.get(model):
            continue
        try:
            manifest = store.manifest(digest)
        except StoreError:
            continue  # damaged; it does not keep others from being asked
        if manifest.kind == "base" or manifest.language != DENSE:
            continue
        if manifest.base.manifest == own.base.manifest:
            return name
    return None
