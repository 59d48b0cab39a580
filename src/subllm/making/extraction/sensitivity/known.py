"""Sensitivities that come with subllm, so that the usual bases need not be measured.

A file is what a measurement left in a store's cache (an extraction with `budget` of that
base), by the base's name. Languages share it: their masks differ in a few places of a hundred.
"""

from __future__ import annotations

import json
from importlib.resources import files

from subllm.making.extraction.sensitivity.record import Sensitivity, from_json, groups_of
from subllm.models.arch.spec import ArchSpec


def known_data(base: str) -> bytes | None:
    """The file that comes along for the base of that name, None for none."""
    file = files("subllm.making.extraction.sensitivity") / "data" / f"{base.replace(':', '-')}.json"
    return file.read_bytes() if file.is_file() else None


def known(base: str, spec: ArchSpec) -> Sensitivity | None:
    """Of the base of that name; None where none comes along, or where it is of another shape."""
    data = known_data(base)
    if data is None:
        return None
    found = from_json(data, json.loads(data)["key"])
    if found is None or set(found.alone) != set(groups_of(spec)):
        return None
    return found
