"""From `--calibration` to token matrices: calibration data and held-out text."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from subllm.errors import CalibrationError
from subllm.making.calibration.files import FilesSource
from subllm.making.calibration.jsonl import JsonlSource
from subllm.making.calibration.mix import budgets, parse_mix
from subllm.making.calibration.packs import KINDS, PackSource, pack_names
from subllm.making.calibration.render import Renderer
from subllm.making.calibration.sampler import Amount, digest, pack, row_content, take
from subllm.making.calibration.source import CalibrationData, Document, Split, Texts, TextSource
from subllm.models.catalog.loader import Catalog
from subllm.models.store.files import hash_file
from subllm.progress import NullProgress, Progress

_HELDOUT_SEED = 0
_SHORT = "recovery needs {least}; add text to it"
_LEFT = "left out of learning to judge by; {least} are needed, add text to it"


@dataclass(frozen=True)
class TextOrigin:
    """Where text is taken from.

    language  whose files of a directory are read
    catalog   has the hub sets
    offline   take hub sets from the cache only
    """

    language: str
    catalog: Catalog = field(default_factory=lambda: Catalog({}, {}))
    offline: bool = False
    progress: Progress | None = None

    def open_mix(self, spec: str, split: Split) -> list[tuple[TextSource, float]]:
        """The sources of `spec` with their shares, which sum to 1."""
        if _existing(spec):  # a path may have "," and "=" in it
            return [(self._open(spec, split), 1.0)]
        return [(self._open(part, split), share) for part, share in parse_mix(spec).items()]

    def open_heldout(self, spec: str, own: bool) -> list[tuple[TextSource, float]]:
        """What is left to judge by: of the language's pack, or of `spec` where it has none or
        `own` says so."""
        if self.language in pack_names() and not own:
            spec = ""
        return self.open_mix(spec or f"pack:{self.language}", "heldout")

    def _open(self, spec: str, split: Split) -> TextSource:
        """Raises CalibrationError for what is none of the kinds, or does not exist."""
        kind, colon, rest = spec.partition(":")
        if colon and kind in KINDS:
            return PackSource(rest, "heldout" if split == "heldout" else "train", KINDS[kind])
        if colon and kind == "hub":
            return self._hub_set(rest, split)
        path = _existing(spec)
        if path is not None and path.is_dir():
            return FilesSource(path, self.language, split)
        if path is not None and path.suffix == ".jsonl":
            return JsonlSource(path, split)
        hint = "give a directory, a .jsonl file, pack:LANGUAGE, code:LANGUAGE or hub:SET"
        if spec in pack_names():
            hint = f"did you mean pack:{spec}?"
        elif spec in self.catalog.calibration_sets:
            hint = f"did you mean hub:{spec}?"
        raise CalibrationError(f"{spec!r} is no calibration source that exists; {hint}")

    def _hub_set(self, name: str, split: Split) -> TextSource:
        # Imported late: the hub's library takes a while, and no other source needs it.
        from subllm.making.calibration.hub_sets import HubSource
        from subllm.models.acquire.datasets import open_dataset

        entry = self.catalog.calibration_set(name)
        opened = partial(
            open_dataset, progress=self.progress or NullProgress(), offline=self.offline
        )
        return HubSource(entry, opened, split)


@dataclass(frozen=True)
class Beside:
    """Another spec, which has all but `share` of the tokens."""

    spec: str
    share: float


def load_calibration(
    spec: str, origin: TextOrigin, renderer: Renderer, *, samples: int, seq_len: int, seed: int
) -> CalibrationData:
    """`samples` sequences of `seq_len` tokens, the same for the same arguments and data.

    spec  "" (the language's own pack), "pack:LANGUAGE", "code:LANGUAGE" (released code, all of
          it to learn from), a directory of code, a .jsonl file, "hub:SET", or a mix
          "pack:python=0.7,PATH=0.3"

    Where the language has no pack, an eighth of the documents is left to `load_heldout`.
    Raises CalibrationError, TableError, UnknownNameError (hub set), AcquireError (hub set).
    """
    split: Split = "all" if origin.language in pack_names() else "train"
    sources = origin.open_mix(spec or f"pack:{origin.language}", split)
    total = samples * row_content(renderer.tokenizer, seq_len)
    parts = [
        take(sources[part][0], renderer, Amount(budget, seq_len), seed, part=part)
        for part, budget in enumerate(budgets(sources, total))
    ]
    documents = [document for part in parts for document in part.documents]
    tokens = pack(documents, renderer.tokenizer, samples, seq_len)
    return CalibrationData(
        tokens=tokens,
        source=_label(sources),
        digest=digest(tokens),
        seed=seed,
        unique_tokens=sum(part.unique_tokens for part in parts),
    )


def load_heldout(
    origin: TextOrigin,
    renderer: Renderer,
    *,
    sequences: int = 8,
    seq_len: int = 512,
    spec: str = "",
    own: bool = False,
) -> npt.NDArray[np.int32]:
    """Text of a language that no calibration sees: int32 [<= sequences, seq_len].

    It is the held-out part of the language's pack; where it has none, or `own` says so, what
    `load_calibration` and `load_texts` left of `spec`. Never repeated, so there may be fewer
    sequences. Raises CalibrationError when there is not even one, else as `load_calibration`.
    """
    sources = origin.open_heldout(spec, own)
    width = row_content(renderer.tokenizer, seq_len)
    parts = [
        take(sources[part][0], renderer, Amount(budget), _HELDOUT_SEED, repeat=False, part=part)
        for part, budget in enumerate(budgets(sources, sequences * width))
    ]
    documents = [document for part in parts for document in part.documents]
    tokens = sum(part.tokens for part in parts)
    if tokens < width:
        raise CalibrationError(
            f"{_label(sources)} leaves {tokens} tokens of {origin.language} to measure on, at "
            f"least {width} are needed; add text to it"
        )
    return pack(documents, renderer.tokenizer, tokens // width, seq_len)


def load_texts(
    spec: str,
    origin: TextOrigin,
    renderer: Renderer,
    amount: Amount,
    *,
    seed: int,
    own: bool = False,
    beside: Beside | None = None,
) -> Texts:
    """Documents of `spec` to learn from, the same for the same arguments and data, of the split
    that `load_calibration` reads. A source that has fewer tokens than wanted is used again, each
    document in its next form, but the least it must have.

    own  leave an eighth of `spec` to be judged by, also where the language has a pack

    Raises as `load_calibration`.
    """
    language = origin.language
    split: Split = "train" if own or language not in pack_names() else "all"
    sources = origin.open_mix(spec or f"pack:{language}", split)
    if beside is not None:
        others = origin.open_mix(beside.spec, split)
        sources = [(source, beside.share * part) for source, part in sources]
        sources += [(source, (1 - beside.share) * part) for source, part in others]
    return _texts(sources, renderer, amount, seed)


def load_heldout_texts(
    origin: TextOrigin,
    renderer: Renderer,
    amount: Amount,
    *,
    spec: str = "",
    own: bool = False,
) -> Texts:
    """Documents to judge by what was learned: the text of `load_heldout`, never repeated, so
    there may be fewer tokens than wanted, but the least. Raises as `load_heldout`."""
    sources = origin.open_heldout(spec, own)
    short = _LEFT if own else _SHORT
    return _texts(sources, renderer, amount, _HELDOUT_SEED, repeat=False, short=short)


def own_heldout(spec: str, origin: TextOrigin) -> list[Document]:
    """The documents that `load_heldout` reads with `own`, before they take any form, in its
    order. Raises as that."""
    sources = origin.open_heldout(spec, own=True)
    return [document for source, _ in sources for document in source.documents(_HELDOUT_SEED)]


def _texts(
    sources: list[tuple[TextSource, float]],
    renderer: Renderer,
    amount: Amount,
    seed: int,
    *,
    repeat: bool = True,
    short: str = _SHORT,
) -> Texts:
    parts = [
        take(
            sources[part][0], renderer, Amount(budget, amount.least), seed,
            repeat=repeat, part=part, short=short,
        )
        for part, budget in enumerate(budgets(sources, amount.tokens))
    ]  # fmt: skip
    keyed = sorted((document for part in parts for document in part.documents), key=lambda d: d[0])
    unique = sum(part.unique_tokens for part in parts)
    return Texts([ids for _, ids in keyed], _label(sources), unique)


def _label(sources: list[tuple[TextSource, float]]) -> str:
    """What a manifest says of the sources."""
    if len(sources) == 1:
        return sources[0][0].name
    return "mix:" + ",".join(f"{source.name}={share:.4g}" for source, share in sources)


def own_texts(spec: str, language: str, *, missing: bool = False) -> dict[str, str]:
    """The user's own sources in `spec`, by `TextSource.name`: how many files they are and a digest
    of those that `language` reads, as `<files> sha256-<hex>`. Nothing is tokenized.

    Raises CalibrationError for a spec that is none; with `missing`, what is gone is left out.
    """
    parts = [spec] if _existing(spec) else list(parse_mix(spec))
    found = {}
    for part in parts:
        kind = part.partition(":")[0]
        path = None if kind in (*KINDS, "hub") else _existing(part)
        if path is not None and path.is_dir():
            source = FilesSource(path, language, "all")
            found[source.name] = source.digest()
        elif path is not None and path.is_file():
            found[f"jsonl:{path.resolve()}"] = f"1 {hash_file(path)}"
        elif path is None and kind not in (*KINDS, "hub") and not missing:
            raise CalibrationError(f"{part!r} is no calibration source that exists")
    return found


def absolute_spec(spec: str) -> str:
    """The same sources, from whatever directory."""
    if (whole := _existing(spec)) is not None:
        return str(whole.absolute())
    parts = []
    for part in spec.split(","):
        source, equals, weight = part.rpartition("=")
        path = _existing(source.strip()) if equals else None
        parts.append(f"{path.absolute()}={weight}" if path is not None else part)
    return ",".join(parts)


def spec_of(label: str) -> str:
    """What reads again where a `CalibrationData.source` came from, on this machine."""
    if label.startswith("mix:"):
        parts = [part.rpartition("=") for part in label.removeprefix("mix:").split(",")]
        return ",".join(f"{spec_of(source)}={share}" for source, _, share in parts)
    return label.removeprefix("path:").removeprefix("jsonl:")


def _existing(spec: str) -> Path | None:
    """The path that `spec` is, where there is something."""
    try:
        path = Path(spec).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError):  # a name that no system takes, an unknown user's home
        return None
