"""Parameters that pruning methods declare, and their values as a user writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from subllm.errors import UnknownNameError, UsageError

Number = int | float


@dataclass(frozen=True)
class Parameter:
    """A number from `lowest` to `highest`; whole where `default` is an int."""

    name: str
    default: Number
    lowest: Number
    highest: Number
    meaning: str

    def parse(self, value: str | Number) -> Number:
        """Raises UsageError for what is no such number."""
        kind = type(self.default)
        try:
            number = kind(value)
        except (ValueError, OverflowError):
            number = None
        if number is None or not self.lowest <= number <= self.highest:
            what = "whole number" if kind is int else "number"
            raise UsageError(
                f"parameter {self.name} is {value!r}; it takes a {what} from {self.lowest} "
                f"to {self.highest} ({self.meaning})"
            )
        return number


def parse_all(
    method: str, parameters: Sequence[Parameter], given: Mapping[str, str | Number]
) -> dict[str, Number]:
    """A value for every parameter of `method`, its default where none is given. Raises
    UnknownNameError for a name that the method does not declare, UsageError for a value."""
    known = {parameter.name: parameter for parameter in parameters}
    for name in given:
        if name not in known:
            takes = ", ".join(f"{p.name} ({p.meaning}, {p.default})" for p in parameters)
            raise UnknownNameError(
                "parameter", name, known, f"{method} takes {takes or 'no parameters'}"
            )
    return {name: p.parse(given.get(name, p.default)) for name, p in known.items()}
