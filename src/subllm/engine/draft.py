"""A loaded model that drafts for a larger one."""

from __future__ import annotations

from dataclasses import dataclass

from subllm.engine.backend import Backend
from subllm.errors import DraftError
from subllm.models.text.same_ids import same_ids
from subllm.models.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Draft:
    """`backend` belongs to the engine that the draft is attached to, which closes it.

    digest  of its manifest, to know it again; empty where it comes from no store
    """

    name: str
    digest: str
    backend: Backend
    tokenizer: Tokenizer

    def check(self, target: str, tokenizer: Tokenizer) -> None:
        """Raises DraftError unless its token ids are those of the target. Sizes may differ:
        families pad their vocabularies, and ids beyond the target's are never proposed."""
        if not same_ids(self.tokenizer, tokenizer):
            raise DraftError(
                f"{self.name} cannot draft for {target}: their token ids mean different "
                "texts; choose a model of the same family, or switch speculation off"
            )
