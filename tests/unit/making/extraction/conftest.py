"""A store with a tiny base, and plans on it, for every family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from subllm.kernels.sparsity.pattern import Pattern
from subllm.making.extraction.estimate import Estimate
from subllm.making.extraction.plan import ExtractionPlan
from subllm.making.extraction.prepare import ExtractOptions, Prepared, open_base, recovery_plan
from subllm.making.extraction.recovering import RecoveryJob
from subllm.making.pruning.allocation import Allocation
from subllm.making.pruning.method import Need
from subllm.making.pruning.registry import get_method
from subllm.models.catalog.prompt import PromptSpec
from subllm.models.store.manifest import (
    BaseManifest,
    CalibrationRecord,
    FileEntry,
    Licence,
    MethodRecord,
    sha256_of,
)
from subllm.models.store.names import model_name
from subllm.models.store.store import Store

from .tiny import digest_of, save_checkpoint, tiny_model

BASE = "tiny:1m"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


@pytest.fixture
def add_base(store: Store, tmp_path: Path) -> Callable[[str], PreTrainedModel]:
    """Puts the tiny model of a family into the store as the base `tiny:1m`."""

    def add(family: str) -> PreTrainedModel:
        model = tiny_model(family)
        directory = save_checkpoint(model, tmp_path / family)
        files = tuple(
            FileEntry(
                name=path.name,
                size=path.stat().st_size,
                digest=digest_of(path),
                local_path=str(path),
            )
            for path in sorted(directory.iterdir())
        )
        manifest = BaseManifest(
            name=BASE,
            source=f"path:{directory}",
            weights="safetensors",
            files=files,
            licence=Licence(id="Apache-2.0"),
            prompt=PromptSpec(context_length=128),
        )
        store.set_ref(BASE, store.put_manifest(manifest))
        return model

    return add


def tokens_for(samples: int, length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, 259, (samples, length), dtype=np.int32)


def prepared_for(
    store: Store,
    options: ExtractOptions,
    samples: int = 6,
    length: int = 24,
    allocation: Allocation | None = None,
    recovery: RecoveryJob | None = None,
) -> Prepared:
    """What `prepare` makes, on random tokens instead of a calibration pack; `allocation`
    instead of the options' pattern."""
    digest, manifest, reader, tokenizer = open_base(store, BASE)
    method = get_method(options.method, options.method_params)
    tokens = tokens_for(samples, length) if method.needs else None
    general = None
    if Need.GENERAL_GRADIENTS in method.needs:
        general = tokens_for(samples, length, seed=1)
    heldout = dict(options.heldout or {})
    record = None
    if tokens is not None:
        record = CalibrationRecord(
            source="random", digest=sha256_of(tokens.tobytes()), samples=samples,
            seq_len=length, seed=0,
        )  # fmt: skip
    plan = ExtractionPlan(
        base=digest,
        language=options.language,
        method=MethodRecord(name=method.name, params=dict(method.params)),
        allocation=allocation or Allocation(Pattern.parse(options.pattern)),
        values=options.values,
        head=options.head,
        calibration=record,
        evaluate={d: sha256_of(t.tobytes()) for d, t in heldout.items()},
        compute="bfloat16" if options.compute == "auto" else options.compute,
        recovery=recovery_plan(recovery) if recovery else None,
    )
    return Prepared(
        name=options.name or model_name(BASE, options.language, options.tag),
        plan=plan,
        base=manifest,
        reader=reader,
        tokenizer=tokenizer,
        method=method,
        tokens=tokens,
        heldout=heldout,
        options=options,
        device=torch.device("cpu"),
        estimate=Estimate(0.0, 1.0, 0.0, 0),
        general=general,
        recovery=recovery,
        cached=store.find_plan(plan.digest),
    )
