"""What an extraction will do, frozen and hashable.

Two plans with the same digest give the same sub-model; the digest is the key of the
cache and of the resumable state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from subllm.errors import UsageError
from subllm.kernels.sparsity.int4 import QUANTISER
from subllm.kernels.sparsity.layout import LAYOUT_VERSION, VALUES, Values
from subllm.making.calibration.source import CalibrationData
from subllm.making.pruning.allocation import Allocation
from subllm.models.store.manifest import CalibrationRecord, MethodRecord, canonical_json, sha256_of
from subllm.models.store.store import Store


def value_type(text: str) -> Values:
    """How values are stored: bf16, int8 or int4. Raises UsageError for anything else, with what
    there is instead of nf4."""
    for known in VALUES:
        if text == known:
            return known
    if text == "nf4":
        raise UsageError(
            "the store does not hold nf4, which only GPUs compute on: a base that is larger than "
            "the card is rounded to it on load; add it as bf16 or int8, or as int4 (as small, for "
            "every machine; at once with --samples 0)"
        )
    raise UsageError(f"value type {text!r} is unknown; use one of {', '.join(VALUES)}")


@dataclass(frozen=True)
class RecoveryPlan:
    """budget as `parse_budget` reads it; recipe is `Recipe.identity()`; source of the text as in
    CalibrationRecord; text and heldout are digests of what is learned from and judged by; teacher
    is the digest of a base that teaches holes instead of its own."""

    budget: str
    recipe: Mapping[str, Any]
    source: str
    text: str
    heldout: str
    teacher: str = ""

    def identity(self) -> dict[str, Any]:
        """JSON-ready. The source is not part of it: moved files are the same text."""
        return {
            "budget": self.budget,
            "recipe": dict(self.recipe),
            "text": self.text,
            "heldout": self.heldout,
            **({"teacher": self.teacher} if self.teacher else {}),
        }


@dataclass(frozen=True)
class ExtractionPlan:
    """base is the digest of the base's manifest; evaluate maps a domain to the digest
    of its held-out tokens; compute is the dtype that blocks run in."""

    base: str
    language: str
    method: MethodRecord
    allocation: Allocation
    values: Values
    head: Values
    calibration: CalibrationRecord | None
    evaluate: dict[str, str] = field(default_factory=dict)
    compute: str = "bfloat16"
    device: str = "cpu"
    recovery: RecoveryPlan | None = None

    def identity(self) -> dict[str, Any]:
        """All that decides the result, JSON-ready."""
        recovery = {"recovery": self.recovery.identity()} if self.recovery else {}
        return {
            "layout": LAYOUT_VERSION,
            "quantiser": QUANTISER,
            "base": self.base,
            "language": self.language,
            "method": self.method.model_dump(mode="json"),
            "pattern": self.allocation.identity(),
            "values": self.values,
            "head": self.head,
            "calibration": self.calibration.model_dump(mode="json") if self.calibration else None,
            "evaluate": self.evaluate,
            "compute": self.compute,
            "device": self.device,
            **recovery,
        }

    @property
    def digest(self) -> str:
        return sha256_of(canonical_json(self.identity()))

    @property
    def workspace(self) -> str:
        """Key of its unfinished work in the store."""
        return f"extract-{self.digest}"


def calibration_record(data: CalibrationData) -> CalibrationRecord:
    """What plan and manifest say of calibration."""
    return CalibrationRecord(
        source=data.source,
        digest=data.digest,
        samples=len(data.tokens),
        seq_len=data.tokens.shape[1],
        seed=data.seed,
        unique_tokens=data.unique_tokens,
    )


def started(store: Store, plan: ExtractionPlan) -> bool:
    """Finished, or left halfway by a run that was stopped."""
    return store.find_plan(plan.digest) is not None or store.begun(plan.workspace)
