"""A second name for a model."""

from __future__ import annotations

from subllm.errors import UsageError
from subllm.models.store.names import split_model_name
from subllm.models.store.store import Store


def copy_model(store: Store, source: str, target: str) -> str:
    """Let `target` name what the model `source` is, with a manifest of its own that shares all
    blobs; returns its digest. The sidecar is copied, what a recovery would go on with is not.

    Raises UnknownNameError, and UsageError where the names differ in more than their tag.
    """
    model = store.model(source)
    wanted = split_model_name(target)
    if (wanted.base, wanted.language) != (model.base.name, model.language):
        raise UsageError(
            f"{target} cannot name {source}; only the tag may differ, as in "
            f"{model.base.name}-{model.language}-{wanted.tag or 'mine'}"
        )
    if target == source:
        raise UsageError(f"{source} has that name; give another one")
    with store.writing():
        digest = store.put_manifest(model.model_copy(update={"name": target, "tag": wanted.tag}))
        if record := store.run_record(store.resolve(source)):
            # Nothing that makes the source again, or fetches it, makes the copy.
            kept = record.model_copy(update={"made": None, "pulled": None})
            store.put_run_record(digest, kept)
        store.set_ref(target, digest)
    return digest
