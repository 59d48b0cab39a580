"""Where settings come from, and how a bad one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from subllm.errors import SettingsError
from subllm.settings import Settings, config_path, help_for, load_settings


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config.toml"
    path.write_text("")
    monkeypatch.setenv("SUBLLM_CONFIG", str(path))
    return path


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUBLLM_HOME")
    settings = load_settings()
    assert (settings.host, settings.port, settings.offline) == ("127.0.0.1", 11435, False)
    assert settings.home.name == "subllm"
    assert settings.threads is None


def test_option_beats_environment_beats_file(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text("port = 1001\nmax_loaded_models = 2\nthreads = 3\n")
    monkeypatch.setenv("SUBLLM_PORT", "1002")
    monkeypatch.setenv("SUBLLM_THREADS", "5")
    settings = load_settings(port=1003, threads=None)
    assert settings.port == 1003
    assert settings.threads == 5
    assert settings.max_loaded_models == 2


def test_paths_are_absolute_and_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SUBLLM_HOME", "~/models")
    monkeypatch.chdir(tmp_path)
    settings = load_settings(catalog=Path("mine.yaml"))
    assert settings.home == tmp_path / "models"
    assert settings.catalog == tmp_path / "mine.yaml"


def test_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBLLM_OFFLINE", "")
    assert load_settings().offline is False


def test_allowed_hosts_in_every_form(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().allowed_hosts == ()
    config.write_text('allowed_hosts = ["box.lan", "other"]\n')
    assert load_settings().allowed_hosts == ("box.lan", "other")
    monkeypatch.setenv("SUBLLM_ALLOWED_HOSTS", "a.example, B.example")
    assert load_settings().allowed_hosts == ("a.example", "b.example")
    assert load_settings(allowed_hosts="c").allowed_hosts == ("c",)


@pytest.mark.parametrize("value", ["*", "http://box.lan", "box.lan:80", "a,,b", "a b", ","])
def test_hosts_that_are_no_names(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"^--allowed-hosts: .*a name such as box\.lan"):
        load_settings(allowed_hosts=value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PORT", "none"),
        ("PORT", "70000"),
        ("DEVICE", "gpu0"),
        ("OFFLINE", "perhaps"),
        ("SPECULATION", "fast"),
        ("SPECULATION", "Qwen:1b-python"),
        ("SPECULATION", "qwen:1b"),
    ],
)
def test_bad_variable_is_named(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"SUBLLM_{variable}", value)
    with pytest.raises(SettingsError, match=rf"^SUBLLM_{variable}: .*{value}") as caught:
        load_settings()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["auto", "off", "ngram", "qwen2.5-coder:0.5b-python-a_b"])
def test_speculation_is_a_mode_or_a_model(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().speculation == "auto"
    monkeypatch.setenv("SUBLLM_SPECULATION", value)
    assert load_settings().speculation == value


def test_bad_option_is_named() -> None:
    with pytest.raises(SettingsError, match=r"^--max-loaded-models: .*greater than or equal to 1"):
        load_settings(max_loaded_models=0)


def test_a_bad_device_is_told_the_devices_and_no_regular_expression() -> None:
    with pytest.raises(SettingsError, match=r"--device: none of its values .*cuda:N") as caught:
        load_settings(device="potato")
    assert "^" not in str(caught.value)


def test_bad_file_value_names_the_file(config: Path) -> None:
    config.write_text("port = 'x'\n")
    with pytest.raises(SettingsError, match=r"config\.toml: port: .*integer"):
        load_settings()


def test_unknown_key_names_the_file_and_what_is_known(config: Path) -> None:
    config.write_text("prot = 1\n")
    with pytest.raises(SettingsError, match=r"config\.toml: prot is not a setting; .*port"):
        load_settings()


def test_malformed_file(config: Path) -> None:
    config.write_text("port = = 1\n")
    with pytest.raises(SettingsError, match=r"config\.toml: cannot be read as TOML .*line 1"):
        load_settings()


def test_named_file_must_exist(config: Path) -> None:
    config.unlink()
    with pytest.raises(SettingsError, match=r"^SUBLLM_CONFIG: there is no file"):
        load_settings()


def test_a_secret_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBLLM_API_KEY", "hunter2")
    settings = load_settings()
    assert "hunter2" not in repr(settings)
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "hunter2"


def test_config_path_honours_the_variable(config: Path) -> None:
    assert config_path() == config


@pytest.mark.parametrize("field", sorted(Settings.model_fields))
def test_every_setting_has_help(field: str) -> None:
    assert help_for(field).startswith(tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
    assert f"SUBLLM_{field.upper()}" in help_for(field)


@pytest.mark.parametrize(("value", "meant"), [("off", False), ("on", True), ("", True)])
def test_the_screened_head_is_switched_by_words(
    value: str, meant: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUBLLM_SCREENED_HEAD", value)
    assert load_settings().screened_head is meant


def test_a_switch_that_is_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBLLM_SCREENED_HEAD", "perhaps")
    with pytest.raises(SettingsError, match="SUBLLM_SCREENED_HEAD"):
        load_settings()


def test_how_long_and_how_much(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (load_settings().keep_alive, load_settings().memory) == ("30m", "75%")
    config.write_text('keep_alive = 600\nmemory = "4GB"\n')
    assert (load_settings().keep_alive, load_settings().memory) == ("600", "4GB")
    assert load_settings(keep_alive="-1").keep_alive == "-1"
    with pytest.raises(SettingsError, match=r"^--keep-alive: .*5m or 1h30m.*got 'soon'"):
        load_settings(keep_alive="soon")
    monkeypatch.setenv("SUBLLM_MEMORY", "all")
    with pytest.raises(SettingsError, match=r"^SUBLLM_MEMORY: .*such as 4GB.*got 'all'"):
        load_settings()
