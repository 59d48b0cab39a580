"""`subllm config`: every client's settings, read as the client reads them."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from shutil import which
from typing import Any

import pytest
import yaml

from subllm.cli.config import CLIENTS
from subllm.cli.editors import jsonc
from subllm.cli.editors.table import TOOLS
from subllm.models.store.store import Store

from ..conftest import Live
from ..samples import BASE, Ran

Command = Callable[..., Ran]
URL = "http://127.0.0.1:11435"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where clients keep their settings."""
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    (tmp_path / "user").mkdir()
    return tmp_path / "user"


def test_every_client_is_in_the_table() -> None:
    assert tuple(TOOLS) == CLIENTS
    assert len(TOOLS) == 11


def lua(text: str) -> Any:
    """Of what we write, the table as Python has it: braces are lists or objects."""
    body = text[text.index("opts = ") + len("opts = ") : text.rindex(",\n  },")]
    body = re.sub(r'function\(\) return ("[^"]*") end', r"\1", body)
    body = re.sub(r"\{ ([^{}=]*) \}", r"[\1]", body)
    body = re.sub(r"(\w+) = ", r'"\1": ', body)
    return jsonc.parse(body)


def vim(text: str) -> dict[str, str]:
    assert text.startswith('" subllm begin\nlet g:llama_config = {\n')
    return dict(re.findall(r"^    \\ '(\w+)': '(.*)',$", text, re.MULTILINE))


READERS: dict[str, Callable[[str], Any]] = {
    "continue": yaml.safe_load,
    "vscode-llama": json.loads,
    "vim-llama": vim,
    "zed": json.loads,
    "minuet": lua,
    "twinny": json.loads,
    "tabby": tomllib.loads,
    "jupyter": json.loads,
    "opencode": json.loads,
    "aider": yaml.safe_load,
    "cline": json.loads,
}


def printed(subllm: Command, client: str, *more: str) -> Any:
    ran = subllm("config", client, *more)
    assert ran.status == 0
    return READERS[client](ran.out)


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in strings(item)] + list(value)
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("client", READERS)
def test_prints_what_the_client_reads(
    client: str, store: Store, subllm: Command, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = strings(printed(subllm, client))
    assert any("127.0.0.1" in text for text in found)
    if client != "tabby":  # its protocol names no model
        assert any(BASE in text for text in found)
    monkeypatch.setenv("SUBLLM_API_KEY", "s3cret'\"")
    with_key = subllm("config", client)
    assert with_key.status == 0
    if client == "zed":  # takes keys from its environment
        assert "s3cret" not in with_key.out
        assert "SUBLLM_API_KEY" in with_key.err
    elif client not in ("minuet", "vim-llama"):
        assert "s3cret'\"" in strings(READERS[client](with_key.out))


def test_no_server_is_said(store: Store, subllm: Command, home: Path) -> None:
    ran = subllm("config", "tabby", "--port", "4242")
    assert tomllib.loads(ran.out)["server"]["endpoint"] == "http://127.0.0.1:4242"
    assert "No server runs: this is for http://127.0.0.1:4242" in ran.err
    assert f"Its place is {home}/.tabby-client/agent/config.toml" in ran.err


def test_a_socket_file_is_nothing_for_editors(
    store: Store, subllm: Command, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUBLLM_HOST", f"unix:{home}/s.sock")
    ran = subllm("config", "zed")
    assert (ran.status, ran.out) == (2, "")
    assert "--host 127.0.0.1" in ran.err


def test_a_running_server_is_found(live: Live, subllm: Command, home: Path) -> None:
    ran = subllm("config", "continue", "--json")
    document = ran.json
    assert (document["url"], document["running"]) == (live.server.url, True)
    assert document["model"] == BASE
    assert document["written"] is False
    assert yaml.safe_load(document["text"]) == document["settings"]
    assert "No server" not in subllm("config", "continue").err


def test_models(store: Store, subllm: Command, home: Path) -> None:
    assert printed(subllm, "aider", "-m", f"{BASE}-java")["model"] == f"openai/{BASE}-java"
    unknown = subllm("config", "aider", "-m", f"{BASE}-jav")
    assert (unknown.status, unknown.out) == (2, "")
    assert f"did you mean {BASE}-java" in unknown.err
    assert subllm("config", "aider", "-m", "auto").status == 2
    assert "did you mean vim-llama" in subllm("config", "vimllama").err


def test_without_models(tmp_path: Path, subllm: Command, home: Path) -> None:
    ran = subllm("config", "zed")
    assert (ran.status, ran.out) == (3, "")
    assert "subllm extract" in ran.err


def test_the_context_is_the_one_that_is_served(
    store: Store, subllm: Command, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def limit() -> int:
        models = printed(subllm, "opencode")["provider"]["subllm"]["models"]
        return int(models[BASE]["limit"]["context"])

    assert limit() == 4096  # the model's
    monkeypatch.setenv("SUBLLM_CONTEXT_LENGTH", "1000")
    assert limit() == 1000


@pytest.mark.parametrize("client", READERS)
def test_written_and_merged(client: str, store: Store, subllm: Command, home: Path) -> None:
    """Into a file that is not there, again, and for another server."""
    document = subllm("config", client, "--write", "--json").json
    path = Path(document["file"])
    assert path.is_relative_to(home)
    assert (document["changed"], document["backup"]) == (True, None)
    assert READERS[client](path.read_text()) == READERS[client](document["text"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first = path.read_text()

    again = subllm("config", client, "--write")
    assert again.out == f"{path}: has it already\n"
    assert path.read_text() == first

    other = subllm("config", client, "--write", "--port", "4242", "--json").json
    assert other["changed"] is True
    assert Path(other["backup"]).read_text() == first
    assert Path(other["backup"]).parent == path.parent
    assert "4242" in path.read_text()
    assert "11435" not in path.read_text()


def test_other_settings_survive(store: Store, subllm: Command, home: Path) -> None:
    path = home / ".config" / "zed" / "settings.json"
    path.parent.mkdir(parents=True)
    text = (
        '// Zed\n{\n  "theme": "One Dark", // mine\n  "edit_predictions": {\n'
        '    "mode": "subtle", /* quiet */\n    "provider": "zed",\n  },\n}\n'
    )
    path.write_text(text)
    path.chmod(0o644)
    ran = subllm("config", "zed", "--write")
    assert ran.status == 0
    changed = path.read_text()
    settings = jsonc.parse(changed)
    assert settings["theme"] == "One Dark"
    assert settings["edit_predictions"]["mode"] == "subtle"
    assert settings["edit_predictions"]["provider"] == "open_ai_compatible_api"
    for comment in ("// Zed", "// mine", "/* quiet */"):
        assert comment in changed
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    (backup,) = path.parent.glob("*.bak")
    assert backup.read_text() == text
    assert str(backup) in ran.out


def test_a_file_that_cannot_be_changed_is_left_alone(
    store: Store, subllm: Command, home: Path
) -> None:
    path = home / "settings.json"
    path.write_text('{"a": 1,, }')
    ran = subllm("config", "zed", "--write", "--file", str(path))
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.endswith(
        f"error: {path}: line 1 is no JSON; correct it or give another --file\n"
    )
    assert path.read_text() == '{"a": 1,, }'
    assert list(home.glob("*.bak")) == []
    path.write_bytes(b"\xff")
    assert "not UTF-8" in subllm("config", "zed", "--write", "--file", str(path)).err
    assert subllm("config", "zed", "--file", "x").status == 2
    assert subllm("config", "zed", "--write", "--file", "/proc/none/x").status == 2


def test_a_link_is_followed(store: Store, subllm: Command, home: Path) -> None:
    real = home / "dotfiles.yml"
    real.write_text("dark-mode: true\n")
    (home / ".aider.conf.yml").symlink_to(real)
    assert subllm("config", "aider", "--write").status == 0
    assert (home / ".aider.conf.yml").is_symlink()
    assert yaml.safe_load(real.read_text())["dark-mode"] is True
    assert yaml.safe_load(real.read_text())["openai-api-base"] == f"{URL}/v1"


def test_vim_takes_it(store: Store, subllm: Command, home: Path) -> None:
    """By Vim itself."""
    shown = subprocess.run(["vim", "--version"], capture_output=True) if which("vim") else None
    if shown is None or b"+eval" not in shown.stdout:
        pytest.skip("Vim with +eval is not installed: its settings were only read as text")
    path, out = home / "rc.vim", home / "out"
    path.write_text(subllm("config", "vim-llama").out)
    tell = f"call writefile([g:llama_config.endpoint_fim], '{out}')"
    subprocess.run(["vim", "-Nes", "-u", str(path), "-c", tell, "-c", "qa!"], check=True)
    assert out.read_text() == f"{URL}/infill\n"


def test_the_guide_has_every_client() -> None:
    guide = (Path(__file__).parents[4] / "docs" / "editors.md").read_text()
    for client in CLIENTS:
        assert f"subllm config {client}" in guide
