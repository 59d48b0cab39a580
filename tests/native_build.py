"""Another build of the native core, such as one with sanitizers, in place of the installed."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

VARIABLE = "SUBLLM_TEST_NATIVE"  # set by scripts/test native: the build's folder


def use_test_build() -> Path | None:
    """Loads the core that VARIABLE names, if it is set, before anything else loads one."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        return None
    import subllm

    (path,) = Path(folder).glob("_native*.so")
    spec = importlib.util.spec_from_file_location("subllm._native", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["subllm._native"] = module
    subllm._native = module  # type: ignore[attr-defined]
    return path
