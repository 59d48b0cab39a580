"""What a record says of the model, the machine and the moment."""

from __future__ import annotations

import datetime
import platform
from typing import Any

from subllm import __version__
from subllm.machine import cpu_name, usable_cores
from subllm.measuring.evaluation.records import ModelFacts
from subllm.models.store.store import Store


def model_facts(store: Store, name: str) -> ModelFacts:
    """Raises UnknownNameError, UsageError for a base, StoreError."""
    digest = store.resolve(name)
    manifest = store.model(name)
    return ModelFacts(
        name=name,
        digest=digest,
        language=manifest.language,
        base=manifest.base.name,
        base_digest=manifest.base.manifest,
        base_source=manifest.base.source,
        method=manifest.method.name,
        pattern=manifest.pattern,
        values=manifest.values,
        head=manifest.head,
        density=manifest.density,
    )


def machine_facts(threads: int | None) -> dict[str, Any]:
    """`threads`: None for all cores that this process may use."""
    return {
        "cpu": cpu_name(),
        "threads": threads or usable_cores(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "subllm": __version__,
    }


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
