"""What a recipe may say, by section, with what holds where it says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from subllm.errors import SubllmError
from subllm.making.extraction import defaults
from subllm.making.recovery.recipe import Moments
from subllm.making.recovery.recipe import Recipe as Learning

FORMAT: Final = 1
AUTO: Final = "auto"
"""Left to subllm, which decides by the machine, the base or another key."""

Auto = Literal["auto"]
Method = Literal["auto", "wanda", "ria", "sparsegpt", "dpruner", "maskllm", "magnitude"]
Stored = Literal["bf16", "int8", "int4"]
Share = Annotated[float, Field(gt=0, lt=1)]
_LEARNING = Learning()


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Prune(_Section):
    """Which weights are kept: of pattern, budget and keep at most one is said."""

    method: Method = AUTO
    params: dict[str, float | int] = {}
    pattern: str = AUTO
    budget: Share | None = None
    keep: Share | None = None

    @field_validator("pattern")
    @classmethod
    def _pattern(cls, text: str) -> str:
        from subllm.kernels.sparsity.pattern import Pattern

        if text != AUTO:
            _plainly(lambda: Pattern.parse(text))
        return text

    @model_validator(mode="after")
    def _whole(self) -> Prune:
        said = [self.pattern != AUTO, self.budget is not None, self.keep is not None]
        if sum(said) > 1:
            raise ValueError("say one of pattern, budget and keep, which all say what is kept")
        if self.params:
            from subllm.making.pruning.registry import get_method

            if self.method == AUTO:
                raise ValueError("params belong to a method; say which")
            _plainly(lambda: get_method(self.method, self.params))
        return self


class Calibration(_Section):
    """The sample of text by which weights are chosen."""

    samples: Annotated[int, Field(ge=1, le=100_000)] | Auto = AUTO
    seq_len: Annotated[int, Field(ge=8)] = 512
    seed: Annotated[int, Field(ge=0)] = 0
    fast: bool = False


class Kept(_Section):
    """How what was made lies in the store."""

    values: Stored = defaults.DEFAULT_VALUES
    head: Stored = "int8"
    keep_state: bool = True


class Recovery(_Section):
    """How long and how what is kept learns; see `recovery.recipe.Recipe` for all but the first
    two keys."""

    budget: str = Field(default_factory=lambda: defaults.DEFAULT_RECOVERY, alias="for")
    teacher: str = ""
    lr: float = _LEARNING.lr
    warmup: float = _LEARNING.warmup
    final: float = _LEARNING.final
    sequences: int = _LEARNING.sequences
    length: int = _LEARNING.length
    temperature: float = _LEARNING.temperature
    disagreement: float = _LEARNING.disagreement
    next_token: float = _LEARNING.next_token
    top_k: int = _LEARNING.top_k
    hidden: float = _LEARNING.hidden
    ends: bool = _LEARNING.ends
    vectors: bool = _LEARNING.vectors
    dense: bool = _LEARNING.dense
    moments: Moments = _LEARNING.moments
    rounding: float = _LEARNING.rounding
    rounding_lr: float = _LEARNING.rounding_lr
    refit: int = _LEARNING.refit
    seed: int = _LEARNING.seed

    @field_validator("budget")
    @classmethod
    def _budget(cls, text: str) -> str:
        from subllm.making.recovery.budget import parse_budget

        _plainly(lambda: parse_budget(text))
        return text

    @model_validator(mode="after")
    def _whole(self) -> Recovery:
        _plainly(lambda: self.learning)
        return self

    @property
    def off(self) -> bool:
        return self.budget == "off"

    @property
    def learning(self) -> Learning:
        """Raises UsageError for values that cannot be learned with."""
        return Learning(**self.model_dump(exclude={"budget", "teacher"}))


def _as_tuple(given: Any) -> Any:
    return tuple(given) if isinstance(given, list) else given  # TOML has lists


class Report(_Section):
    """What is measured of it at the end."""

    evaluate: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    problems: bool = True


class Recipe(_Section):
    """A whole one. `sections` is what a file says, without `format`."""

    format: Literal[1] = FORMAT
    prune: Prune = Prune()
    calibration: Calibration = Calibration()
    store: Kept = Kept()
    recovery: Recovery = Field(default_factory=Recovery)
    report: Report = Report()

    @property
    def method(self) -> str:
        if self.prune.method != AUTO:
            return self.prune.method
        return defaults.PLAIN_METHOD if self.recovery.off else defaults.RECOVERED_METHOD

    @property
    def pattern(self) -> str:
        return defaults.DEFAULT_PATTERN if self.prune.pattern == AUTO else self.prune.pattern

    def sections(self) -> dict[str, dict[str, Any]]:
        """JSON-ready, by the names that a file has; what is not said at all is left out."""
        dumped: dict[str, dict[str, Any]] = self.model_dump(
            mode="json", by_alias=True, exclude_none=True, exclude={"format"}
        )
        return dumped

    def but(self, changes: Mapping[str, Mapping[str, Any]]) -> Recipe:
        """This one with other values of some keys. Raises ValidationError of pydantic."""
        return Recipe.model_validate(merged(self.sections(), changes))


def merged(
    below: Mapping[str, Mapping[str, Any]], above: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Sections with all keys of both; those of `above` hold. One of pattern, budget and keep
    takes the place of the others."""
    found = {name: dict(keys) for name, keys in below.items()}
    for name, keys in above.items():
        section = found.setdefault(name, {})
        if name == "prune" and keys.keys() & _WHAT:
            for other in _WHAT:
                section.pop(other, None)
        if name == "prune" and keys.get("method", section.get("method")) != section.get("method"):
            section.pop("params", None)
        section |= keys
    return found


_WHAT = {"pattern", "budget", "keep"}


def _plainly(check: Any) -> None:
    """pydantic collects ValueError alone."""
    try:
        check()
    except SubllmError as error:
        raise ValueError(str(error)) from error
