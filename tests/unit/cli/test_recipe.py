"""`--recipe`, `subllm recipe`, and options that moved into recipes."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from subllm.cli.commands import COMMANDS, LazyCommands
from subllm.models.store.store import Store

from .samples import Ran
from .tiny_store import BASE

Command = Callable[..., Ran]


@pytest.mark.parametrize("command", ["extract", "recover"])
def test_ten_options_are_enough(command: str) -> None:
    parameters = LazyCommands(COMMANDS)[command].params
    options = [one for one in parameters if one.param_type_name == "option" and one.name != "help"]
    assert "recipe" in {one.name for one in options}
    assert len(options) <= 10


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--pattern", "8:16"], "[prune] pattern = '8:16'"),
        (["--pattern=8:16"], "[prune] pattern = '8:16'"),
        (["--method-param", "a=0.7"], "[prune] params = {a = 0.7}"),
        (["--samples", "4"], "[calibration] samples = 4"),
        (["--no-keep-state"], "[store] keep_state = false"),
        (["--evaluate", "java,cpp"], "[report] evaluate = ['java', 'cpp']"),
        (["--seed"], "[calibration] seed = ..."),
    ],
)
def test_an_option_that_moved_says_where_it_went(
    arguments: list[str], line: str, subllm: Command, store: Store
) -> None:
    ran = subllm("extract", "python", *arguments)
    assert (ran.status, ran.out) == (2, "")
    option = arguments[0].partition("=")[0]
    assert ran.err == (
        f"error: {option} moved into the recipe: {line}; see 'subllm recipe show default'\n"
    )
    ours = line.replace("[", "", 1).replace("] ", ".", 1)
    if "..." not in ours:
        assert tomllib.loads(ours)


def test_an_option_of_recover_that_moved(subllm: Command, store: Store) -> None:
    ran = subllm("recover", "x", "--for", "1h", "--teacher", "a:1b")
    assert ran.status == 2
    assert "[recovery] teacher = 'a:1b'" in ran.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[prune]\n\npatern = '8:16'", "3: unknown key 'prune.patern'; did you mean pattern?"),
        ("[prune]\npattern = 8", "2: key 'prune.pattern': Input should be a valid string, not 8"),
        ("format = 2\n[new]\na = 1", "1: format 2 is newer than this version reads (1)"),
        ("[prune", "1: not valid TOML: "),
    ],
)
@pytest.mark.parametrize("command", ["extract python", f"recover {BASE}-python --for 1h"])
def test_a_bad_recipe_is_one_line_and_nothing_is_fetched(
    text: str, message: str, command: str, tiny: Store, subllm: Command, tmp_path: Path
) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    before = sorted(tiny.root.rglob("*"))
    ran = subllm(*command.split(), "--recipe", str(path))
    assert (ran.status, ran.out) == (2, "")
    assert len(ran.err.splitlines()) == 1
    assert ran.err.startswith(f"error: recipe.toml:{message}")
    assert sorted(tiny.root.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "small", "--recipe", "fast"], "--recipe is given twice"),
        (["--recipe", "smal"], "unknown recipe 'smal'; did you mean small"),
        (["--recipe", "./none.toml"], "recipe ./none.toml cannot be read (No such file"),
        (["--recipe", "small", "--fast"], "--fast is --recipe fast; leave one"),
        (["--recipe", "of:tiny:1m-nothing"], "unknown"),
    ],
)
def test_a_recipe_is_one_that_is_there(
    arguments: list[str], message: str, tiny: Store, subllm: Command
) -> None:
    ran = subllm("extract", "python", *arguments)
    assert (ran.status, ran.out) == (2, "")
    assert message in ran.err


def test_recipes_are_listed_and_shown(subllm: Command, store: Store, tmp_path: Path) -> None:
    listed = subllm("recipe", "list").out
    for name in ("default", "fast", "small", "editor"):
        assert name in listed
        shown = subllm("recipe", "show", name)
        assert shown.status == 0 and tomllib.loads(shown.out)["format"] == 1
    assert subllm("recipe", "list", "--json").json["small"]["store"]["head"] == "int4"
    own = tmp_path / "own.toml"
    own.write_text(subllm("recipe", "show", "small").out)
    whole = tomllib.loads(subllm("recipe", "show", str(own)).out)
    assert whole["store"] == {"values": "int4", "head": "int4", "keep_state": True}
    assert whole["recovery"]["top_k"] == 32
    assert subllm("recipe", "show", "none").status == 2


def test_a_built_in_recipe_is_made_by_and_an_option_holds_against_it(
    tiny: Store, code: str, subllm: Command, tmp_path: Path
) -> None:
    where = ("extract", "python", "--base", BASE, "--calibration", code)
    ran = subllm(*where, "--recipe", "small", "--recover", "off")
    assert ran.status == 0, ran.err
    manifest = tiny.model(f"{BASE}-python")
    assert (manifest.head, manifest.recovery) == ("int4", None)
    record = tiny.run_record(tiny.resolve(f"{BASE}-python"))
    assert record is not None and record.made is not None
    assert record.made.arguments[-4:] == ("--recipe", "small", "--calibration", code)
    assert "built_in" in record.made.basis
    assert subllm("outdated", "--json").json["outdated"] == []
    java = subllm("extract", "java", *where[2:], "--recipe", f"of:{BASE}-python", "--json").json
    assert (java["head"], java["recovery"]) == ("int4", None)
