"""What a recovery learns from and is judged by, in rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from subllm.errors import CalibrationError
from subllm.languages import GENERAL
from subllm.making.calibration.load import (
    Beside,
    TextOrigin,
    load_heldout_texts,
    load_texts,
)
from subllm.making.calibration.mix import parse_beside
from subllm.making.calibration.packs import (
    Kind,
    code_names,
    pack_bytes,
    pack_names,
    written_names,
)
from subllm.making.calibration.render import Renderer
from subllm.making.calibration.sampler import Amount
from subllm.making.recovery.recipe import Recipe
from subllm.making.recovery.rows import RecoveryText, joined, pack_rows, with_filled
from subllm.models.catalog.prompt import PromptSpec
from subllm.models.text.tokenizer import Tokenizer

LEARNED_TOKENS = 1_000_000
"""What is learned from before anything comes again. Documents of a source that has fewer come in
all their forms, with other holes to fill."""
JUDGED_TOKENS = 4096
MORE_HOLES = 0.4
"""Where a larger base teaches holes: share of the documents that can have one which do, whatever
form is due; with those whose turn it is, they are more than half of the text."""


@dataclass(frozen=True)
class RecoveryData:
    """source as in `CalibrationRecord`; unique tokens of `learned`: before any document came
    again in another form."""

    learned: RecoveryText
    heldout: RecoveryText
    source: str
    unique_tokens: int


def default_source(language: str) -> str:
    """What a recovery learns from where nobody says: the language's pack, in all forms that are
    served, released code of it and functions that a base wrote, as far as there are (for
    "general" those of all languages); "" for none. In equal shares, but for what is smaller than
    the pack: that comes as often as the pack does. Languages share by size."""
    if language not in pack_names():
        return ""
    shares = {f"pack:{language}": 1.0}
    known: dict[Kind, tuple[str, ...]] = {"code": code_names(), "written": written_names()}
    for kind, names in known.items():
        names = names if language == GENERAL else tuple(n for n in names if n == language)
        size = sum(pack_bytes(name, kind) for name in names)
        for name in names:
            share = min(1, size / pack_bytes(language))
            shares[f"{kind}:{name}"] = share * pack_bytes(name, kind) / size
    if len(shares) == 1:
        return ""
    whole = sum(shares.values())
    return ",".join(f"{source}={share / whole:.6g}" for source, share in shares.items())


@dataclass(frozen=True)
class Mixed:
    """What is mixed, beside one source.

    own            judged by what is left out of that source, also where the language has a pack
    beside, share  another source, which has all but `share` of what is learned from
    joining        sources that join, as `parse_beside` reads them; none of their text is left out
                   to judge by
    holes          documents with a hole are more frequent (`MORE_HOLES`), in rows of their own
    """

    own: bool = False
    beside: str = ""
    share: float = 1.0
    joining: str = ""
    holes: bool = False


_PLAIN = Mixed()


def load_recovery_data(
    source: str,
    recipe: Recipe,
    origin: TextOrigin,
    tokenizer: Tokenizer,
    prompt: PromptSpec,
    seed: int,
    mixed: Mixed = _PLAIN,
) -> RecoveryData:
    """source as `--calibration`, "" for `default_source` of the origin's language.

    Raises CalibrationError and its kin where it is missing or has less than one step learns from,
    or less than a row to judge by, or with `holes` none."""
    learned_from = source or default_source(origin.language)
    beside, share = mixed.beside, mixed.share
    if mixed.joining:
        assert not beside
        beside = learned_from or f"pack:{origin.language}"
        learned_from, share = parse_beside(mixed.joining)
    renderer = Renderer(tokenizer, prompt, MORE_HOLES if mixed.holes else 0.0)
    texts = load_texts(
        learned_from,
        origin,
        renderer,
        Amount(LEARNED_TOKENS, recipe.tokens),
        seed=seed,
        own=mixed.own,
        beside=Beside(beside, share) if beside else None,
    )
    heldout = load_heldout_texts(
        origin, renderer, Amount(JUDGED_TOKENS, recipe.length), spec=source, own=mixed.own
    )
    end = renderer.end
    bos = tokenizer.bos_id if tokenizer.adds_bos else None

    def rows(documents: Sequence[Sequence[int]]) -> RecoveryText:
        return pack_rows(documents, recipe.length, end=end, bos=bos)

    def apart(documents: Sequence[Sequence[int]]) -> RecoveryText:
        """Documents with a hole first."""
        halves: dict[bool, list[Sequence[int]]] = {True: [], False: []}
        for document in documents:
            halves[renderer.fills(document)].append(document)
        parts = [rows(half) for half in halves.values() if sum(map(len, half)) >= recipe.length]
        return joined(parts or [rows(documents)])

    def packed(documents: Sequence[Sequence[int]]) -> RecoveryText:
        marker = renderer.before_middle
        text = apart(documents) if mixed.holes and marker else rows(documents)
        return with_filled(text, marker) if marker else text

    learned = packed(texts.documents)
    if learned.rows < recipe.sequences:
        raise CalibrationError(
            f"{texts.source} has {learned.rows * recipe.length} tokens, recovery needs "
            f"{recipe.tokens}; add text to it"
        )
    if mixed.holes and (learned.filled is None or not learned.filled.any()):
        raise CalibrationError(
            f"{texts.source} has no holes to fill for this model, which is all that a larger base "
            "teaches; take a recipe without a teacher"
        )
    return RecoveryData(learned, packed(heldout.documents), texts.source, texts.unique_tokens)
