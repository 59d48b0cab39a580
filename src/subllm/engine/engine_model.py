"""The model that an engine runs, as those who ask see it."""

from __future__ import annotations

from dataclasses import dataclass

from subllm.models.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class EngineModel:
    """context_length  tokens of a prompt with its completion
    stop_tokens     texts of special tokens that end a completion, beside EOS
    """

    name: str
    tokenizer: Tokenizer
    context_length: int
    stop_tokens: tuple[str, ...] = ()

    def stop_ids(self) -> dict[int, str]:
        """Every token that ends a completion, with its text; what is no token is left out."""
        tokenizer = self.tokenizer
        stops = {token: tokenizer.decode([token]) for token in tokenizer.eos_ids}
        for text in self.stop_tokens:
            token = tokenizer.id_of(text)
            if token is not None:
                stops[token] = text
        return stops
