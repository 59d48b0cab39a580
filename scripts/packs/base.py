"""Which base model answers, and the record of a run that goes into the packs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from answers import Sampling

from subllm.acquire.pull import base_files
from subllm.catalog.loader import load_catalog
from subllm.catalog.schema import BaseEntry
from subllm.settings import load_settings
from subllm.store.files import hash_file
from subllm.store.store import Store

RUN_FILE = "run.json"


def find_base(name: str) -> tuple[tuple[Path, ...], dict]:
    """Files of a base and its provenance. `name` is one of the store's bases, or a GGUF
    file that the catalog lists (by its digest, whatever the file is called).

    Raises SystemExit for another file and errors of the store for another name."""
    path = Path(name)
    if path.is_file():
        digest = hash_file(path).removeprefix("sha256-")
        for entry in load_catalog().bases.values():
            for source in entry.sources:
                if source.type == "hub" and source.sha256 == digest:
                    return (path,), _record(entry, source.repo, source.revision, digest)
        raise SystemExit(f"{name} is no file of the catalog; give a base by its name")
    store = Store(load_settings().home)
    manifest = store.base(name)
    return tuple(base_files(manifest, store)), {
        "base": manifest.name,
        # A path means nothing elsewhere; the digest says what was there.
        "source": "path" if manifest.source.startswith("path:") else manifest.source,
        "revision": manifest.revision,
        "digest": ", ".join(f.digest for f in manifest.files if not f.name.endswith(".json")),
        "licence": manifest.licence.id,
    }


def _record(entry: BaseEntry, repo: str, revision: str, digest: str) -> dict:
    return {
        "base": entry.name,
        "source": f"hub:{repo}",
        "revision": revision,
        "digest": f"sha256-{digest}",
        "licence": entry.licence.id,
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
