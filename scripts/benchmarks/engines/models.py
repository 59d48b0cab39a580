"""Models of a base in the store, made where they are not there.

The command line decides what is there already: an equal plan is answered from the store. It is
asked once for each.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from subllm.errors import UnknownNameError
from subllm.kernels.sparsity.layout import LAYOUT_VERSION
from subllm.models.store.manifest import ModelManifest
from subllm.models.store.names import model_name
from subllm.models.store.store import Store

PATTERN = "8:16"


def run_cli(*command: str) -> None:
    """`subllm` with these arguments; ends the process where it fails."""
    program = str(Path(sys.executable).with_name("subllm"))
    done = subprocess.run([program, *command], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"'subllm {' '.join(command)}' failed")


@cache
def dense(store: Store, base: str, values: str) -> str:
    """The name of the dense model in `values`, with the head that its user would get, but for
    bf16: there the head is bf16 too, so that nothing is rounded further."""
    tag = f"bench_{values}"
    head = ["--head", "bf16"] if values == "bf16" else []
    run_cli("add", base, "--values", values, "--tag", tag, *head)
    return model_name(base, "dense", tag)


@cache
def pruned_by_magnitude(base: str, values: str) -> str:
    """The name of an 8:16 model in `values` that is as fast as any and made in no time."""
    tag = f"bench_{values}"
    _extract(base, tag, f'[prune]\nmethod = "magnitude"\npattern = "{PATTERN}"', values)
    return model_name(base, "python", tag)


@cache
def sub_model(store: Store, base: str, values: str) -> str:
    """The name of a Python sub-model in `values`, 8:16 by Wanda: the one in the store that has
    the ordinary name where it is like that, else one of the default calibration."""
    name = model_name(base, "python")
    try:
        known = store.model(name)
    except UnknownNameError:
        known = None
    if known is not None and _fits(known, store, base, values):
        return name
    tag = f"bench_wanda_{values}"
    run_cli("pull", base)
    _extract(base, tag, f'[prune]\npattern = "{PATTERN}"', values)
    return model_name(base, "python", tag)


def _extract(base: str, tag: str, prune: str, values: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        recipe = Path(directory) / "recipe.toml"
        recipe.write_text(f'{prune}\n[store]\nvalues = "{values}"\n[recovery]\nfor = "off"\n')
        run_cli("extract", "python", "--base", base, "--recipe", str(recipe), "--tag", tag)


def _fits(known: ModelManifest, store: Store, base: str, values: str) -> bool:
    return (
        known.base.manifest == store.resolve(base)
        and known.layout == LAYOUT_VERSION
        and known.pattern == PATTERN
        and known.values == values
        and known.method.name == "wanda"
    )
