"""Which base model answers, and the record of a run that goes into the packs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from answers import Sampling

from subllm.models.store.store import Store

RUN_FILE = "run.json"


def find_base(store: Store, name: str) -> dict:
    """The provenance of a base. Raises errors of the store for a name it does not have."""
    manifest = store.base(name)
    return {
        "base": manifest.name,
        # A path means nothing elsewhere; the digest says what was there.
        "source": "path" if manifest.source.startswith("path:") else manifest.source,
        "revision": manifest.revision,
        "digest": ", ".join(f.digest for f in manifest.files if not f.name.endswith(".json")),
        "licence": manifest.licence.id,
    }


def record_run(directory: Path, base: dict, sampling: Sampling, counts: Mapping[str, int]) -> dict:
    """Keeps what the answers of a directory have in common; more tasks may be added later.

    Raises SystemExit when the directory holds answers of another base or sampling."""
    draws = asdict(sampling)
    seed = draws.pop("seed")
    made = {**base, "sampling": draws, "seed": seed, "tasks": dict(counts)}
    path = directory / RUN_FILE
    if path.exists() and {**json.loads(path.read_text()), "tasks": dict(counts)} != made:
        raise SystemExit(
            f"{directory} holds answers of another base or sampling; "
            "give another --answers directory"
        )
    directory.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(made, indent=2) + "\n")
    return made


def read_run(directory: Path) -> dict:
    """Raises SystemExit when nothing was generated there."""
    path = directory / RUN_FILE
    if not path.exists():
        raise SystemExit(f"no answers in {directory}; run 'scripts/make-packs generate' first")
    return json.loads(path.read_text())
