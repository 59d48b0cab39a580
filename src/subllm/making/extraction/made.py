"""What a model was asked for with, and what subllm chose for it: so that it can be made again, and
so that it shows when today's choice would be another one.

What the user chose is in the arguments, what was left to subllm is in the basis: the defaults,
texts, recipes and formats that decided, by digest where they are long. It depends on neither
machine nor base, and takes no weights to compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from subllm.kernels.sparsity.int4 import QUANTISER
from subllm.kernels.sparsity.layout import LAYOUT_VERSION
from subllm.languages import GENERAL
from subllm.making.calibration.load import absolute_spec, own_texts
from subllm.making.calibration.packs import packs_digest
from subllm.making.extraction.defaults import (
    DEFAULT_PATTERN,
    DEFAULT_RECOVERY,
    DEFAULT_SAMPLES,
    DEFAULT_VALUES,
    DENSE_SAMPLES,
    DENSE_VALUES,
    PLAIN_METHOD,
    RECOVERED_METHOD,
)
from subllm.making.extraction.sensitivity.known import known_data
from subllm.making.recovery.budget import parse_budget
from subllm.making.recovery.recipe import Recipe
from subllm.models.store.manifest import MadeBy, canonical_json, sha256_of

SAID = {
    "layout": "the packed layout",
    "rounding": "how values are rounded",
    "values": "the type of values",
    "method": "how weights are chosen",
    "samples": "how much calibration",
    "pattern": "how many weights are kept",
    "density": "where weights are kept",
    "recovery": "how long it learns",
    "recipe": "how it learns",
    "text": "the text that comes with subllm",
}
"""What each part of a basis decides, in words."""


def made_by(arguments: Sequence[str], base: str) -> MadeBy:
    """Of `subllm ARGUMENTS`: "extract" and a language, or "add", then options. `base` is a name of
    the store. Raises CalibrationError for text of the user that is not there."""
    language, spec = _language(arguments), _given(arguments, "--calibration")
    return MadeBy(
        arguments=tuple(arguments),
        basis=basis_of(arguments, base),
        texts=own_texts(spec, language) if spec else {},
    )


def basis_of(arguments: Sequence[str], base: str) -> dict[str, str]:
    """By the keys of SAID, where it is not the arguments that say."""
    found = {"layout": str(LAYOUT_VERSION), "rounding": str(QUANTISER)}
    if arguments[0] == "add":
        return found | _of_dense(arguments)
    fast = "--fast" in arguments
    recover = _given(arguments, "--recover") or ("off" if fast else DEFAULT_RECOVERY)
    off = parse_budget(recover).off
    spec, language = _given(arguments, "--calibration"), _language(arguments)
    if not _given(arguments, "--method"):
        found["method"] = PLAIN_METHOD if off else RECOVERED_METHOD
    if not _given(arguments, "--values"):
        found["values"] = DEFAULT_VALUES
    if not _given(arguments, "--samples") and not fast:
        found["samples"] = str(DEFAULT_SAMPLES)
    if not any(_given(arguments, option) for option in ("--pattern", "--budget", "--keep")):
        found["pattern"] = DEFAULT_PATTERN
        found["density"] = _sensitivity(base)
    if not off:
        found["recovery"] = recover if _given(arguments, "--recover") is None else ""
        found["recipe"] = sha256_of(canonical_json(Recipe().identity()))
    if not spec or any(f"{kind}:" in spec for kind in ("pack", "code", "written")):
        found["text"] = packs_digest(language)
    return found


def differences(made: MadeBy, base: str) -> list[str]:
    """What subllm would choose otherwise today, in words."""
    if made.arguments[0] == "tune":
        return []
    now = basis_of(made.arguments, base)
    return [
        _difference(key, made.basis.get(key, ""), now.get(key, ""))
        for key in SAID
        if made.basis.get(key, "") != now.get(key, "")
    ]


def tuned_by(name: str, data: str, budget: str, new: str, language: str) -> MadeBy:
    """Of `subllm tune`, whose choices of its own are no reason to do it again. Raises as
    `made_by`."""
    arguments = ("tune", name, "--data", absolute_spec(data), "--for", budget, "--name", new)
    return MadeBy(arguments=arguments, basis={}, texts=own_texts(data, language))


def changed_texts(made: MadeBy, language: str) -> list[str]:
    """The user's texts that are not what they were, in words, of a model of that language. Those
    that are gone are among them."""
    spec = _given(made.arguments, "--calibration") or _given(made.arguments, "--data") or ""
    now = own_texts(spec, language, missing=True) if made.texts else {}
    said = []
    for source, before in made.texts.items():
        if source not in now:
            said.append(f"{source} is gone")
        elif now[source] != before:
            said.append(f"{source} changed ({_counts(before, now[source])})")
    return said


def _of_dense(arguments: Sequence[str]) -> dict[str, str]:
    values = _given(arguments, "--values")
    found = {} if values else {"values": DENSE_VALUES}
    samples = _given(arguments, "--samples")
    if (values or DENSE_VALUES) == "int4" and samples != "0":
        found["text"] = packs_digest(GENERAL)
        if samples is None:
            found["samples"] = str(DENSE_SAMPLES)
    return found


def _sensitivity(base: str) -> str:
    """Digest of what comes along for that base, "" for nothing."""
    data = known_data(base)
    return "" if data is None else sha256_of(data)


def _language(arguments: Sequence[str]) -> str:
    return GENERAL if arguments[0] == "add" else arguments[1]


def _given(arguments: Sequence[str], option: str) -> str | None:
    return next(
        (value for name, value in pairwise(arguments) if name == option),
        None,
    )


def _difference(key: str, before: str, now: str) -> str:
    """`how weights are chosen (wanda -> sparsegpt)`"""
    long = any(len(value) > 20 for value in (before, now))
    return SAID[key] if long else f"{SAID[key]} ({before or 'none'} -> {now or 'none'})"


def _counts(before: str, now: str) -> str:
    """Of `<files> <digest>`."""
    counts = [text.partition(" ")[0] for text in (before, now)]
    return f"{counts[0]} -> {counts[1]} files" if counts[0] != counts[1] else f"{counts[0]} files"
