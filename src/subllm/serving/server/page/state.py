"""What the page shows, as one JSON document."""

from __future__ import annotations

from typing import Any, Protocol

from subllm.errors import StoreError
from subllm.models.store.manifest import RecoveryRecord, RecoveryRun
from subllm.models.store.store import Store
from subllm.models.store.working import Work, working
from subllm.serving.server.loaded import LoadedModel
from subllm.serving.server.models import ServedModel
from subllm.serving.server.service import Service

_POINTS = 60  # of a curve


class Facts(Protocol):
    """What the store tells beside the models."""

    def work(self) -> list[Work]: ...

    def recovery(self, digest: str) -> RecoveryRun | None: ...


class NoFacts:
    def work(self) -> list[Work]:
        return []

    def recovery(self, digest: str) -> RecoveryRun | None:
        return None


class StoreFacts:
    def __init__(self, store: Store) -> None:
        self._store = store

    def work(self) -> list[Work]:
        return working(self._store.workspace)

    def recovery(self, digest: str) -> RecoveryRun | None:
        try:
            record = self._store.run_record(digest)
        except StoreError:
            return None
        return record.recovery if record else None


def state(service: Service, facts: Facts) -> dict[str, Any]:
    """Reads the store; call it off the event loop. Without what requests say: see `live`."""
    worker = service.worker
    loaded = {model.name: model for model in worker.loaded}
    work = facts.work()
    models = [
        _model(service, model, loaded.get(name), facts)
        for name, model in sorted(service.models.models().items())
    ]
    return {
        "status": worker.failure or worker.hang or "ok",
        "open": worker.open,
        "loading": worker.loading,
        "ids": service.router.ids(),
        "models": models,
        "work": [{"what": w.command or w.key, "pid": w.pid, "blocks": w.blocks} for w in work],
    }


def _model(
    service: Service, model: ServedModel, loaded: LoadedModel | None, facts: Facts
) -> dict[str, Any]:
    manifest = model.manifest
    own = manifest.perplexity.get(manifest.language)
    return {
        "name": model.ref.name,
        "base": manifest.base.name,
        "language": manifest.language,
        "pattern": manifest.pattern,
        "values": manifest.values,
        "density": manifest.density,
        "bytes": service.models.size_of(model.ref),
        "bytes_read": model.sub_model.bytes_read,
        "context_length": service.planner.context_length(model),
        "fills_in": manifest.prompt.fim is not None,
        "agreement": own.agreement if own else None,
        "perplexity": {"before": own.before, "after": own.after} if own else None,
        "recovery": _recovery(manifest.recovery, facts.recovery(model.ref.version)),
        "loaded": _loaded(loaded),
    }


def _recovery(record: RecoveryRecord | None, run: RecoveryRun | None) -> dict[str, Any] | None:
    if record is None:
        return None
    curve = run.curve if run else ()
    step = max(1, len(curve) // _POINTS)
    return {
        "tokens": record.tokens,
        "before": record.before.agreement,
        "after": record.after.agreement,
        "curve": [[point.tokens, point.agreement] for point in curve[::step]],
    }


def _loaded(model: LoadedModel | None) -> dict[str, Any] | None:
    if model is None:
        return None
    return {
        "bytes": model.resident_bytes,
        "active": model.active,
        "draft": model.draft,
        "drafted": sum(tokens for tokens, _ in model.drafted.values()),
        "accepted": sum(accepted for _, accepted in model.drafted.values()),
    }
