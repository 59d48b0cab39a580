"""`subllm service`: the files, and what the system says of them."""

from __future__ import annotations

import configparser
import os
import plistlib
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from subllm.cli.services.launchd import LABEL, Agent
from subllm.cli.services.systemd import Unit

from .samples import Ran

Command = Callable[..., Ran]
ODD = ["/a b/python", "-m", "subllm", "serve", '--x="100%"', "$HOME"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    return tmp_path / "user"


def test_install_writes_a_unit(home: Path, tmp_path: Path, subllm: Command) -> None:
    ran = subllm("service", "install", "--no-start", "--port", "4242", "--json")
    assert ran.status == 0
    path = home / ".config" / "systemd" / "user" / "subllm.service"
    assert ran.json == {"file": str(path), "installed": True, "running": False}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(path)
    assert unit["Service"]["ExecStart"] == (
        f'"{sys.executable}" "-m" "subllm" "serve" "--port" "4242"'
    )
    assert unit["Service"]["Environment"] == f'"SUBLLM_HOME={tmp_path / "subllm-home"}"'
    assert unit["Service"]["Restart"] == "on-failure"
    assert unit["Install"]["WantedBy"] == "default.target"

    assert subllm("service", "status", "--json").json["installed"] is True
    assert subllm("service", "uninstall").status == 0
    assert not path.exists()
    gone = subllm("service", "uninstall")
    assert (gone.status, gone.out) == (8, "")
    assert "no service is installed" in gone.err
    assert subllm("service", "status").out.startswith("service  not installed\n")


def test_systemd_accepts_it(home: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed: the unit was only read")
    python = home / "a b%" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    unit = Unit()
    unit.write(unit.text([str(python), *ODD[1:]], {"SUBLLM_HOME": "/x y/$z/100%"}))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", "--man=no", str(unit.file)],
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(home)},
    )
    complaints = [line for line in done.stderr.splitlines() if "subllm.service" in line]
    assert complaints == []


def test_a_unit_that_systemd_refuses(home: Path) -> None:
    """That the check above can fail."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = Unit()
    unit.write(unit.text(["/no/such/python"], {}).replace("Type=exec", "Type=x"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", "--man=no", str(unit.file)],
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(home)},
    )
    assert "subllm.service" in done.stderr


def test_words_of_a_unit(home: Path) -> None:
    lines = Unit().text(ODD, {"A": "100%"}).splitlines()
    (line,) = (line for line in lines if line.startswith("ExecStart"))
    assert line == ('ExecStart="/a b/python" "-m" "subllm" "serve" "--x=\\"100%%\\"" "$$HOME"')
    assert 'Environment="A=100%%"' in Unit().text(ODD, {"A": "100%"})


def test_an_agent_of_launchd(home: Path) -> None:
    agent = Agent()
    agent.write(agent.text(ODD, {"SUBLLM_HOME": "/x y"}))
    assert agent.file == home / "Library" / "LaunchAgents" / f"{LABEL}.plist"
    described = plistlib.loads(agent.file.read_bytes())
    assert described["ProgramArguments"] == ODD
    assert described["EnvironmentVariables"] == {"SUBLLM_HOME": "/x y"}
    assert described["KeepAlive"] == {"SuccessfulExit": False}
    assert described["RunAtLoad"] is True


def test_a_key_of_the_shell_alone_is_refused(
    home: Path, subllm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUBLLM_API_KEY", "secret")
    ran = subllm("service", "install", "--no-start")
    assert (ran.status, ran.out) == (2, "")
    assert "config.toml" in ran.err
    assert list(home.rglob("*.service")) == []


def test_without_a_manager_it_says_what_was_written(
    home: Path, tmp_path: Path, subllm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    ran = subllm("service", "install")
    assert ran.status == 8
    assert "is written" in ran.err
    assert (home / ".config" / "systemd" / "user" / "subllm.service").exists()


def test_what_is_refused(home: Path, subllm: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "did you mean install" in subllm("service", "instal").err
    assert subllm("service", "status", "--port", "1").status == 2
    assert subllm("service", "install", "--port", "0").status == 2
    monkeypatch.setattr(sys, "platform", "win32")
    assert subllm("service", "status").status == 2
