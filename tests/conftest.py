"""What all tests share: they touch neither the user's home nor the user's settings."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from subllm.settings import CONFIG_VARIABLE, ENV_PREFIX, Settings

# A run tests what the one before it did, so that a change is what fails it. Look for more with
# SUBLLM_TEST_RANDOM=1.
settings.register_profile("repeatable", derandomize=True)
if not os.environ.get("SUBLLM_TEST_RANDOM"):
    settings.load_profile("repeatable")

_VARIABLES = [CONFIG_VARIABLE, *(f"{ENV_PREFIX}{field.upper()}" for field in Settings.model_fields)]


@pytest.fixture(autouse=True)
def _own_home(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store and a configuration of the test's own; end-to-end tests choose their store."""
    end_to_end = request.node.get_closest_marker("e2e") is not None
    for name in _VARIABLES:
        if not (end_to_end and name == "SUBLLM_HOME"):
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg-config"))
    if not end_to_end:
        monkeypatch.setenv("SUBLLM_HOME", str(tmp_path / "subllm-home"))


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1 MB."""
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: a full disk, as mounting a tiny one takes root")
    root = tmp_path / "mount"
    root.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "subllm-test", str(root)]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("NOT TESTED: a full disk, as a tiny one cannot be mounted here")
    yield root
    subprocess.run(["umount", str(root)], check=True)
