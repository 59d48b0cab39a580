"""What commands that ask a model say where there is none: what to run, exit code 3."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from subllm.cli import daemon
from subllm.models.acquire.pull import pull
from subllm.models.catalog.loader import Catalog
from subllm.models.store.store import Store

from .samples import Ran
from .tiny_store import BASE, write_checkpoint

Command = Callable[..., Ran]
MISSING = "error: there is no model to ask yet; run 'subllm extract python'\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["complete", "x"],
        ["complete", "x", "--model", "auto"],
        ["complete", "x", "--local", "--language", "python"],
        ["complete", "x", "-m", BASE],
        ["chat", "x", "--model", "auto"],
        ["route", __file__],
        ["route", __file__, "--model", "auto"],
        ["bench"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("with_base", [False, True])
def test_no_model_yet(
    arguments: list[str], with_base: bool, tmp_path: Path, subllm: Command
) -> None:
    if with_base:
        store = Store(tmp_path / "subllm-home")
        pull(str(write_checkpoint(tmp_path / "base")), store, Catalog({}, {}), name=BASE)
    ran = subllm(*arguments)
    assert (ran.status, ran.out, ran.err) == (3, "", MISSING)


def test_a_server_without_models(
    tmp_path: Path, free_port: Callable[[], int], subllm: Command
) -> None:
    server = daemon.launch(tmp_path / "subllm-home", "127.0.0.1", free_port(), [], None)
    try:
        for command in ("complete", "chat"):
            ran = subllm(command, "x")
            assert (ran.status, ran.out, ran.err) == (3, "", MISSING)
    finally:
        daemon.stop(server)


def test_a_name_that_is_not_there_is_a_wrong_name(tiny: Store, subllm: Command) -> None:
    for arguments in (["complete", "x", "-m", "nope"], ["route", __file__, "-m", "nope"]):
        ran = subllm(*arguments)
        assert (ran.status, ran.out) == (2, "")
        assert ran.err.startswith("error: unknown model 'nope'")
