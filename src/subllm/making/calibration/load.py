"""From `--calibration` to token matrices: calibration data and held-out text."""

from __future__ import annotations

from dataclasses import dataclass
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
from subllm.making.calibration.sampler import digest, pack, row_content, take
from subllm.making.calibration.source import CalibrationData, Document, Split, Texts, TextSource
from subllm.models.catalog.loader import Catalog
from subllm.models.catalog.prompt import PromptSpec
from subllm.models.store.files import hash_file
from subllm.models.text.tokenizer import Tokenizer
from subllm.progress import NullProgress, Progress

_HELDOUT_SEED = 0
_SHORT = "recovery needs {least}; add text to it"
_LEFT = "left out of learning to judge by; {least} are needed, add text to it"


def load_calibration(
    spec: str,
    *,
    language: str,
    tokenizer: Tokenizer,
    prompt: PromptSpec,
    samples: int,
    seq_len: int,
    seed: int,
    catalog: Catalog,
    offline: bool = False,
    progress: Progress | None = None,
) -> CalibrationData:
    """`samples` sequences of `seq_len` tokens, the same for the same arguments and data.

    spec      "" (the language's own pack), "pack:LANGUAGE", "code:LANGUAGE" (released code,
              all of it to learn from), a directory of code, a .jsonl file, "hub:SET", or a mix
              "pack:python=0.7,PATH=0.3"
    language  whose files of a directory are read
    offline   take hub sets from the cache only

    Where `language` has no pack, an eighth of the documents is left to `load_heldout`.
    Raises CalibrationError, TableError, UnknownNameError (hub set), AcquireError (hub set).
    """
    split: Split = "all" if language in pack_names() else "train"
    origin = _Origin(language, catalog, split, offline, progress or NullProgress())
    sources = origin.open_mix(spec or f"pack:{language}")
    total = samples * row_content(tokenizer, seq_len)
    renderer = Renderer(tokenizer, prompt)
    parts = [
        take(sources[part][0], renderer, budget, seed, least=seq_len, part=part)
        for part, budget in enumerate(budgets(sources, total))
    ]
    documents = [document for part in parts for document in part.documents]
    tokens = pack(documents, tokenizer, samples, seq_len)
    return CalibrationData(
        tokens=tokens,
        source=_label(sources),
        digest=digest(tokens),
        seed=seed,
        unique_tokens=sum(part.unique_tokens for part in parts),
    )


def load_heldout(
    language: str,
    *,
    tokenizer: Tokenizer,
    prompt: PromptSpec,
    sequences: int = 8,
    seq_len: int = 512,
    spec: str = "",
    catalog: Catalog | None = None,
    offline: bool = False,
    progress: Progress | None = None,
    own: bool = False,
) -> npt.NDArray[np.int32]:
    """Text of `language` that no calibration sees: int32 [<= sequences, seq_len].

    It is the held-out part of the language's pack; where it has none, or `own` says so, what
    `load_calibration` and `load_texts` left of `spec`. Never repeated, so there may be fewer
    sequences. Raises CalibrationError when there is not even one, else as `load_calibration`.
    """
    sources = _heldout_sources(spec, language, catalog, offline, progress, own)
    width = row_content(tokenizer, seq_len)
    renderer = Renderer(tokenizer, prompt)
    parts = [
        take(sources[part][0], renderer, budget, _HELDOUT_SEED, least=0, repeat=False, part=part)
        for part, budget in enumerate(budgets(sources, sequences * width))
    ]
    documents = [document for part in parts for document in part.documents]
    tokens = sum(part.tokens for part in parts)
    if tokens < width:
        raise CalibrationError(
            f"{_label(sources)} leaves {tokens} tokens of {language} to measure on, at least "
            f"{width} are needed; add text to it"
        )
    return pack(documents, tokenizer, tokens // width, seq_len)


def load_texts(
    spec: str,
    *,
    language: str,
    tokenizer: Tokenizer,
    prompt: PromptSpec,
    tokens: int,
    least: int,
    seed: int,
    catalog: Catalog,
    offline: bool = False,
    progress: Progress | None = None,
    own: bool = False,
    beside: str = "",
    share: float = 1.0,
    holes: float = 0.0,
) -> Texts:
    """Documents of `spec` to learn from, the same for the same arguments and data: `tokens`
    tokens of the split that `load_calibration` reads. A source that has fewer is used again,
    each document in its next form, but at least `least` tokens it must have.

    own     leave an eighth of `spec` to be judged by, also where the language has a pack
    beside  another spec, which has all but `share` of the tokens
    holes   as for `Renderer`

    Raises as `load_calibration`.
    """
    split: Split = "train" if own or language not in pack_names() else "all"
    origin = _Origin(language, catalog, split, offline, progress or NullProgress())
    sources = origin.open_mix(spec or f"pack:{language}")
    if beside:
        others = origin.open_mix(beside)
        sources = [(source, share * part) for source, part in sources]
        sources += [(source, (1 - share) * part) for source, part in others]
    return _texts(sources, Renderer(tokenizer, prompt, holes), tokens, least, seed)


def load_heldout_texts(
    language: str,
    *,
    tokenizer: Tokenizer,
    prompt: PromptSpec,
    tokens: int,
    least: int,
    spec: str = "",
    catalog: Catalog | None = None,
    offline: bool = False,
    progress: Progress | None = None,
    own: bool = False,
    holes: float = 0.0,
) -> Texts:
    """Documents to judge by what was learned: the text of `load_heldout`, never repeated, so
    there may be fewer tokens, but at least `least`. holes as for `Renderer`. Raises as
    `load_heldout`."""
    sources = _heldout_sources(spec, language, catalog, offline, progress, own)
    return _texts(
        sources, Renderer(tokenizer, prompt, holes), tokens, least, _HELDOUT_SEED,
        repeat=False, short=_LEFT if own else _SHORT,
    )  # fmt: skip


def own_heldout(
    spec: str,
    *,
    language: str,
    catalog: Catalog | None = None,
    offline: bool = False,
    progress: Progress | None = None,
) -> list[Document]:
    """The documents that `load_heldout` reads with `own`, before they take any form, in its
    order. Raises as that."""
    sources = _heldout_sources(spec, language, catalog, offline, progress, own=True)
    return [document for source, _ in sources for document in source.documents(_HELDOUT_SEED)]


def _heldout_sources(
    spec: str,
    language: str,
    catalog: Catalog | None,
    offline: bool,
    progress: Progress | None,
    own: bool,
) -> list[tuple[TextSource, float]]:
    if language in pack_names() and not own:
        spec = ""
    origin = _Origin(
        language, catalog or Catalog({}, {}), "heldout", offline, progress or NullProgress()
    )
    return origin.open_mix(spec or f"pack:{language}")


def _texts(
    sources: list[tuple[TextSource, float]],
    renderer: Renderer,
    tokens: int,
    least: int,
    seed: int,
    *,
    repeat: bool = True,
    short: str = _SHORT,
) -> Texts:
    parts = [
        take(
            sources[part][0], renderer, budget, seed,
            least=least, repeat=repeat, part=part, short=short,
        )
        for part, budget in enumerate(budgets(sources, tokens))
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


@dataclass(frozen=True)
class _Origin:
    """Opens the sources of one call."""

    language: str
    catalog: Catalog
    split: Split
    offline: bool
    progress: Progress

    def open_mix(self, spec: str) -> list[tuple[TextSource, float]]:
        """The sources of `spec` with their shares, which sum to 1."""
        if _existing(spec):  # a path may have "," and "=" in it
            return [(self._open(spec), 1.0)]
        return [(self._open(part), share) for part, share in parse_mix(spec).items()]

    def _open(self, spec: str) -> TextSource:
        """Raises CalibrationError for what is none of the kinds, or does not exist."""
        kind, colon, rest = spec.partition(":")
        if colon and kind in KINDS:
            split: Split = "heldout" if self.split == "heldout" else "train"
            return PackSource(rest, split, KINDS[kind])
        if colon and kind == "hub":
            return self._hub_set(rest)
        path = _existing(spec)
        if path is not None and path.is_dir():
            return FilesSource(path, self.language, self.split)
        if path is not None and path.suffix == ".jsonl":
            return JsonlSource(path, self.split)
        hint = "give a directory, a .jsonl file, pack:LANGUAGE, code:LANGUAGE or hub:SET"
        if spec in pack_names():
            hint = f"did you mean pack:{spec}?"
        elif spec in self.catalog.calibration_sets:
            hint = f"did you mean hub:{spec}?"
        raise CalibrationError(f"{spec!r} is no calibration source that exists; {hint}")

    def _hub_set(self, name: str) -> TextSource:
        # Imported late: the hub's library takes a while, and no other source needs it.
        from subllm.making.calibration.hub_sets import HubSource
        from subllm.models.acquire.datasets import open_dataset

        entry = self.catalog.calibration_set(name)
        opened = partial(open_dataset, progress=self.progress, offline=self.offline)
        return HubSource(entry, opened, self.split)


def _existing(spec: str) -> Path | None:
    """The path that `spec` is, where there is something."""
    try:
        path = Path(spec).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError):  # a name that no system takes, an unknown user's home
        return None
