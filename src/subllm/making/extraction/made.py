"""What a model was asked for with, and what subllm chose for it: so that it can be made again, and
so that it shows when today's choice would be another one.

What the user chose is in the arguments, what was left to subllm is in the basis: the defaults,
texts, recipes and formats that decided, by digest where they are long. It depends on neither
machine nor base, and takes no weights to compute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from pydantic import ValidationError

from subllm.errors import UsageError
from subllm.kernels.sparsity.int4 import QUANTISER
from subllm.kernels.sparsity.layout import LAYOUT_VERSION
from subllm.languages import GENERAL
from subllm.making.calibration.load import absolute_spec, own_texts
from subllm.making.calibration.packs import packs_digest
from subllm.making.extraction.defaults import (
    DEFAULT_PATTERN,
    DEFAULT_SAMPLES,
    DENSE_SAMPLES,
    DENSE_VALUES,
)
from subllm.making.extraction.recipes.read import BUILT_IN, Asked, built_in
from subllm.making.extraction.recipes.sections import merged
from subllm.making.extraction.sensitivity.known import known_data
from subllm.making.recovery.recipe import Recipe as Learning
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
    "built_in": "what its recipe says",
    "text": "the text that comes with subllm",
}
"""What each part of a basis decides, in words."""


def made_by(arguments: Sequence[str], base: str, asked: Asked | None = None) -> MadeBy:
    """Of `subllm ARGUMENTS`: "extract" and a language, or "add", then options. `base` is a name of
    the store; asked: the recipe of an extraction, which the arguments name only where it is a
    built-in one. Raises CalibrationError for text of the user that is not there."""
    language, spec = _language(arguments), _given(arguments, "--calibration")
    return MadeBy(
        arguments=tuple(arguments),
        basis=_of_dense(arguments) if asked is None else _of_extraction(arguments, base, asked),
        texts=own_texts(spec, language) if spec else {},
        recipe={} if asked is None else asked.recipe.sections(),
        said={} if asked is None else {name: dict(keys) for name, keys in asked.said.items()},
    )


def recipe_of(made: MadeBy) -> Asked:
    """The recipe of an extraction as it would be today: what the user chose is as it was. Raises
    UsageError for one that is no recipe any more."""
    arguments = made.arguments
    name = "fast" if "--fast" in arguments else _given(arguments, "--recipe") or "default"
    asked = built_in(name if name in BUILT_IN else "default")
    said = made.said or _said_by_options(arguments)
    if not said:
        return asked
    try:
        return replace(asked, recipe=asked.recipe.but(said), said=said)
    except ValidationError as error:
        raise UsageError("its recipe is none any more; extract it again by another") from error


def again(made: MadeBy, name: str) -> tuple[str, ...]:
    """Arguments of `subllm` that make the model `name` again; `--recipe of:NAME` is in them where
    it was made by more than options and a built-in recipe."""
    arguments = made.arguments
    if arguments[0] != "extract":
        return arguments
    said = {section: dict(keys) for section, keys in recipe_of(made).said.items()}
    if "--recover" in arguments:
        said.get("recovery", {}).pop("for", None)
    if not any(said.values()):
        return arguments
    gone = {**_OPTIONS, "--recipe": None, **dict.fromkeys(_FLAGS), "--fast": None}
    kept, words = [], iter(arguments)
    for word in words:
        if word not in gone or word == "--recover":
            kept.append(word)
        elif word not in _FLAGS and word != "--fast":
            next(words, None)
    return (*kept, "--recipe", f"of:{name}")


def differences(made: MadeBy, base: str) -> list[str]:
    """What subllm would choose otherwise today, in words. Raises as `recipe_of`."""
    arguments = made.arguments
    if arguments[0] == "tune":
        return []
    now = (
        _of_dense(arguments)
        if arguments[0] == "add"
        else _of_extraction(arguments, base, recipe_of(made))
    )
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


def _of_extraction(arguments: Sequence[str], base: str, asked: Asked) -> dict[str, str]:
    """By the keys of SAID, where it is not the user who says."""
    found, recipe = _formats(), asked.recipe
    said = {section: set(keys) for section, keys in asked.said.items()}
    prune, recovery = said.get("prune", set()), said.get("recovery", set())
    if "method" not in prune:
        found["method"] = recipe.method
    if "values" not in said.get("store", ()):
        found["values"] = recipe.store.values
    if "samples" not in said.get("calibration", ()) and not recipe.calibration.fast:
        found["samples"] = str(DEFAULT_SAMPLES)
    if not prune & {"pattern", "budget", "keep"}:
        found["pattern"] = DEFAULT_PATTERN
        found["density"] = _sensitivity(base)
    if not recipe.recovery.off:
        found["recovery"] = "" if "for" in recovery else recipe.recovery.budget
        learning = Learning().identity()
        left = {key: value for key, value in learning.items() if key not in recovery}
        found["recipe"] = sha256_of(canonical_json(left))
    if asked.name not in ("", "default", "fast"):  # of fast, all is in the other parts
        found["built_in"] = sha256_of(canonical_json(built_in(asked.name).recipe.sections()))
    spec, language = _given(arguments, "--calibration"), _language(arguments)
    if not spec or any(f"{kind}:" in spec for kind in ("pack", "code", "written")):
        found["text"] = packs_digest(language)
    return found


def _of_dense(arguments: Sequence[str]) -> dict[str, str]:
    found, values = _formats(), _given(arguments, "--values")
    if not values:
        found["values"] = DENSE_VALUES
    samples = _given(arguments, "--samples")
    if (values or DENSE_VALUES) == "int4" and samples != "0":
        found["text"] = packs_digest(GENERAL)
        if samples is None:
            found["samples"] = str(DENSE_SAMPLES)
    return found


def _formats() -> dict[str, str]:
    return {"layout": str(LAYOUT_VERSION), "rounding": str(QUANTISER)}


def _text(value: str) -> str:
    return value


def _number(value: str) -> float | int:
    return int(value) if value.lstrip("-").isdigit() else float(value)


def _parameter(value: str) -> dict[str, float | int]:
    name, _, number = value.partition("=")
    return {name.strip(): _number(number.strip())}


def _list(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


_OPTIONS: dict[str, tuple[str, str, Callable[[str], Any]]] = {
    "--method": ("prune", "method", _text),
    "--method-param": ("prune", "params", _parameter),
    "--pattern": ("prune", "pattern", _text),
    "--budget": ("prune", "budget", _number),
    "--keep": ("prune", "keep", _number),
    "--values": ("store", "values", _text),
    "--head": ("store", "head", _text),
    "--samples": ("calibration", "samples", _number),
    "--seq-len": ("calibration", "seq_len", _number),
    "--seed": ("calibration", "seed", _number),
    "--evaluate": ("report", "evaluate", _list),
    "--teacher": ("recovery", "teacher", _text),
    "--recover": ("recovery", "for", _text),
}
_FLAGS = {"--no-keep-state": ("store", "keep_state"), "--no-problems": ("report", "problems")}
"""Keys of a recipe that were options of `extract`, as stores of before have them; --recover is
one still."""


def _said_by_options(arguments: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
    """Raises UsageError."""
    said: dict[str, dict[str, Any]] = {}
    for word, value in pairwise((*arguments, "")):
        try:
            if word in _FLAGS:
                section, key = _FLAGS[word]
                said = merged(said, {section: {key: False}})
            elif word in _OPTIONS:
                section, key, form = _OPTIONS[word]
                made = form(value)
                if key == "params":
                    made = said.get(section, {}).get(key, {}) | made
                said.setdefault(section, {})[key] = made
        except ValueError as error:
            raise UsageError(f"{word} {value} of its extraction is not understood") from error
    return said


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
