"""What every reader checks: that the file holds the model that its config describes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import numpy.typing as npt

from subllm.errors import WeightsError
from subllm.models.arch.spec import ArchSpec
from subllm.models.arch.tensors import tensor_shapes


def check_shapes(path: Path, spec: ArchSpec, found: Mapping[str, tuple[int, ...]]) -> None:
    """Raises WeightsError unless every tensor of the architecture is there, in shape."""
    for name, shape in tensor_shapes(spec).items():
        if name not in found:
            raise WeightsError(f"{path} has no tensor {name!r}; it is incomplete, fetch it again")
        if found[name] != shape:
            raise WeightsError(
                f"{path}: tensor {name!r} has shape {found[name]}, its config says {shape}; "
                "fetch it again"
            )


def check_indices(name: str, shape: tuple[int, ...], indices: npt.NDArray[np.int64]) -> None:
    """Raises WeightsError unless `indices` are rows of a matrix of this shape."""
    if len(shape) != 2:
        raise WeightsError(f"tensor {name!r} is not a matrix and has no rows; read it whole")
    missing = indices[(indices < 0) | (indices >= shape[0])]
    if missing.size:
        raise WeightsError(
            f"row {missing[0]} of tensor {name!r} does not exist; it has {shape[0]} rows"
        )


def unknown_tensor(path: Path, name: str, known: Iterable[str]) -> WeightsError:
    near = get_close_matches(name, list(known), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "; list them with names()"
    return WeightsError(f"{path} has no tensor {name!r}{hint}")
