"""Recipes: what is in them, and what is wrong with one."""

from __future__ import annotations

from pathlib import Path

import pytest

from subllm.errors import UnknownNameError, UsageError
from subllm.making.extraction import defaults
from subllm.making.extraction.recipes.read import BUILT_IN, built_in, built_in_text, find, parse
from subllm.making.extraction.recipes.sections import Recipe, merged
from subllm.making.extraction.recipes.write import to_toml
from subllm.making.recovery.recipe import Recipe as Learning


def test_the_default_says_all_that_holds_where_nobody_says() -> None:
    assert parse(built_in_text("default"), "default.toml") == Recipe().sections()
    recipe = built_in("default").recipe
    assert recipe == Recipe()
    assert (recipe.method, recipe.pattern) == (defaults.RECOVERED_METHOD, defaults.DEFAULT_PATTERN)
    assert recipe.recovery.budget == defaults.DEFAULT_RECOVERY
    assert recipe.recovery.learning == Learning()
    assert recipe.but({"recovery": {"for": "off"}}).method == defaults.PLAIN_METHOD


def test_built_in_ones_teach_their_keys_and_can_be_read_back() -> None:
    for name in BUILT_IN:
        text = built_in_text(name)
        assert text.startswith("# ") and text.isascii()
        recipe = built_in(name).recipe
        assert parse(to_toml(recipe.sections()), "x") == recipe.sections()
    fast, small, editor = (built_in(name).recipe for name in ("fast", "small", "editor"))
    assert (fast.method, fast.recovery.off, fast.calibration.fast) == ("wanda", True, True)
    assert (small.store.head, small.store.values) == ("int4", "int4")
    assert editor.recovery.teacher == "qwen2.5-coder:1.5b"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[prun]\na = 1", "r.toml:1: unknown key 'prun'; did you mean prune?"),
        ("[store]\nhaed = 'int4'", "r.toml:2: unknown key 'store.haed'; did you mean head?"),
        ("[store]\nxyz = 1", "r.toml:2: unknown key 'store.xyz'"),
        ("[recovery]\nbudget = '1h'", "r.toml:2: unknown key 'recovery.budget'"),
        ("prune = 3", "r.toml:1: key 'prune': Input should be a valid dictionary"),
        (
            "[prune]\nmethod = 'wand'",
            "r.toml:2: key 'prune.method': Input should be 'auto', 'wanda', ",
        ),
        ("[prune]\npattern = '9:16x'", "r.toml:2: pattern '9:16x' is not understood"),
        (
            "[prune]\nbudget = 7.0",
            "r.toml:2: key 'prune.budget': Input should be less than 1, not 7.0",
        ),
        ("[prune]\nbudget = 0.5\nkeep = 0.4", "r.toml:1: say one of pattern, budget and keep"),
        ("[calibration]\nsamples = 'x'", "Input should be a valid integer or 'auto', not 'x'"),
        ("[calibration]\nsamples = true", "not True"),
        ("[recovery]\n# how long\nfor = 'soon'", "r.toml:3: 'soon' is no budget for recovery"),
        ("[recovery]\nlr = nan", "r.toml:1: lr, near, "),
        ("format = 'a'", "r.toml:1: key 'format': Input should be 1, not 'a'"),
        ("format = 9\nwhat = 1", "r.toml:1: format 9 is newer than this version reads (1)"),
        ("[prune]\n[prune]", "r.toml:2: not valid TOML: "),
    ],
)
def test_what_is_wrong_is_one_line(text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(text, "r.toml")
    said = str(error.value)
    assert said.startswith("r.toml") and message in said and "\n" not in said


def test_files_that_are_none(tmp_path: Path) -> None:
    for name, data in (("bytes.toml", b"\xff\xfe"), ("long.toml", b"#" * (1 << 21))):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UsageError):
            find(str(tmp_path / name))
    for missing in (str(tmp_path), str(tmp_path / "none.toml")):
        with pytest.raises(UsageError, match="cannot be read"):
            find(missing)
    with pytest.raises(UnknownNameError, match="did you mean editor"):
        find("edito")


def test_what_is_said_holds_against_what_is_below() -> None:
    below = {"prune": {"method": "ria", "params": {"a": 0.7}, "pattern": "8:16"}}
    assert merged(below, {"prune": {"budget": 0.6}})["prune"] == {
        "method": "ria",
        "params": {"a": 0.7},
        "budget": 0.6,
    }
    assert "params" not in merged(below, {"prune": {"method": "wanda"}})["prune"]
    assert below["prune"]["pattern"] == "8:16"
