"""`subllm tune` on a tiny base and a directory of code."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from subllm.cli.context import complete_sub_model
from subllm.making.recovery.recipe import Recipe
from subllm.models.store.store import Store

from .samples import Ran
from .tiny_store import BASE

Command = Callable[..., Ran]
NAME = f"{BASE}-python-small"
NEW = f"{NAME}-tuned"

pytestmark = pytest.mark.usefixtures("small")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that tells on a tiny model."""
    monkeypatch.setattr(
        "subllm.making.extraction.recovering.Recipe", lambda: Recipe(lr=3e-3, warmup=0.0)
    )


@pytest.fixture
def pruned(tiny: Store, code: str, subllm: Command) -> Store:
    """The tiny store with a sub-model that has masks."""
    ran = subllm(
        "extract", "python", "--base", BASE, "calibration.samples=4",
        "calibration.seq_len=64", "--tag", "small", "--calibration", code,
    )  # fmt: skip
    assert ran.status == 0, ran.err
    return tiny


def test_own_code_makes_a_new_model_and_the_end_says_what_it_brought(
    pruned: Store,
    code: str,
    tmp_path: Path,
    subllm: Command,
) -> None:
    before = pruned.names()
    assert complete_sub_model(f"{BASE}-python") == [f"{BASE}-python", NAME]
    assert complete_sub_model(f"{BASE}-de") == []

    empty, little = tmp_path / "empty", tmp_path / "little"
    empty.mkdir()
    little.mkdir()
    (little / "a.py").write_text("def f(x):\n    return x + 1\n\n\n" * 12)
    for arguments, message in (
        ([NAME, "--data", str(empty), "--for", "1h"], "has no python files that git would track"),
        ([NAME, "--data", str(little), "--for", "1h"], "recovery needs 2048; add text to it"),
        ([NAME, "--data", "nowhere", "--for", "1h"], "'nowhere' is no calibration source"),
        ([NAME, "--data", code, "--for", "soon"], "'soon' is no budget for recovery"),
        ([NAME, "--data", code, "--for", "off"], "--for off leaves nothing to do"),
        ([NAME, "--data", code, "--for", "100tok"], "less than the 2,048 tokens of one step"),
        ([NAME, "--data", code, "--for", "1h", "--name", f"{BASE}-python"], "is there already"),
        ([f"{BASE}-java", "--data", code, "--for", "1h"], "is dense, there is nothing to recover"),
        ([BASE, "--data", code, "--for", "1h"], "is a base, not a model"),
        ([f"{BASE}-pyton", "--data", code, "--for", "1h"], "did you mean"),
    ):
        ran = subllm("tune", *arguments)
        assert ran.status != 0 and ran.out == ""
        last = ran.err.splitlines()[-1]
        assert last.startswith("error: ") and message in last
        assert pruned.names() == before
        assert not pruned.workspace.recoveries.exists()

    ran = subllm("tune", NAME, "--data", code, "--for", "8192tok", "--json")
    assert ran.status == 0, ran.err
    assert f"{NEW}: starts from {NAME}, learns for 8192tok from mix:path:" in ran.err
    result = ran.json
    assert (result["name"], result["origin"], result["stopped"]) == (NEW, NAME, "budget")
    assert result["better"] and pruned.resolve(NEW) == result["digest"]
    assert {name: pruned.names()[name] for name in before} == before
    sidecar = pruned.run_record(result["digest"])
    assert sidecar is not None and sidecar.made is not None
    assert sidecar.made.arguments[:4] == ("tune", NAME, "--data", code)
    assert list(sidecar.made.texts) == [f"path:{code}"]
    record = result["tuning"]
    assert record["after"]["nll"] < record["before"]["nll"]
    assert "=0.7,pack:python=" in record["source"] and "code:python=" in record["source"]
    own = result["own"]
    assert own["after"]["perplexity"] < own["before"]["perplexity"]
    assert own["form"] == "fim"
    assert own["after"]["holes"] == own["before"]["holes"] == 40
    assert 0 <= own["after"]["exact"] <= 40
    assert set(result["cost"]["before"]) == set(result["cost"]["after"]) == {"python"}

    ran = subllm("tune", NAME, "--data", code, "--for", "2048tok")
    assert ran.status == 0, ran.err
    assert f"{NEW}: goes on where it was" in ran.err
    facts = dict(line.split("  ", 1) for line in ran.out.splitlines())
    assert " -> " in facts["your perplexity"]
    assert "of 40 exactly" in facts["lines filled in"]
    assert "(dense " in facts["cost, python"]
    assert f"from {NAME}, on " in subllm("show", NEW).out
    assert subllm("complete", "def f(", "-m", NEW, "-n", "3").status == 0
    assert subllm("verify", NEW).status == 0


# Ctrl-C in the middle of the third step, in a process of its own.
_STOPPED = """
import os, signal, sys
import subllm.making.extraction.recovering as preparing
import subllm.making.extraction.recovery_text as text
from subllm.cli import app
from subllm.making.recovery.distil import Recovery
from subllm.making.recovery.recipe import Recipe

preparing.Recipe = lambda: Recipe(lr=3e-3, warmup=0.0)
text.LEARNED_TOKENS, text.JUDGED_TOKENS = 20_000, 512
steps, real = 0, Recovery._step

def step(self, run):
    global steps
    steps += 1
    if steps == 3:
        os.kill(os.getpid(), signal.SIGINT)
    return real(self, run)

Recovery._step = step
sys.exit(app.run(sys.argv[1:]))
"""


@pytest.mark.long
def test_ctrl_c_keeps_what_was_reached(
    pruned: Store,
    code: str,
) -> None:
    arguments = ["tune", NAME, "--data", code, "--for", "3h"]
    done = subprocess.run(
        [sys.executable, "-c", _STOPPED, *arguments],
        env={**os.environ, "SUBLLM_HOME": str(pruned.root)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "stopping after this step" in done.stderr and "Traceback" not in done.stderr
    assert "stopped, 6,144 tokens" in done.stdout and "your perplexity" in done.stdout
    (record,) = pruned.model(NEW).tunings
    assert (record.origin, record.tokens) == (NAME, 6144)
