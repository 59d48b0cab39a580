"""`subllm bench` on tiny models, whose speed means nothing and whose fields do."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable

import pytest

from subllm.engine import bandwidth
from subllm.errors import BackendError
from subllm.models.store.collect import remove
from subllm.models.store.manifest import RunRecord, sha256_of
from subllm.models.store.store import Store

from .samples import Ran
from .tiny_store import BASE

Command = Callable[..., Ran]
SMALL = ("--prompt-tokens", "24", "--tokens", "3")
SERIES = (
    "prefill_tokens_per_second",
    "decode_tokens_per_second",
    "batch_decode_tokens_per_second",
    "first_token_seconds",
)


@pytest.fixture(autouse=True)
def _known_bandwidth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second that each test here need not spend again."""
    monkeypatch.setattr(bandwidth, "read_bandwidth", lambda threads: 2e9)


def test_json_is_one_document_with_all_samples(tiny: Store, subllm: Command) -> None:
    ran = subllm("bench", f"{BASE}-java", "--repeat", "3", "--json", *SMALL)
    assert ran.status == 0, ran.err
    document = json.loads(ran.out)
    assert document["machine"]["threads"] == 1  # the setting
    assert document["machine"]["backend"] == "native"
    assert document["machine"]["kernels"] in ("avx512", "avx_vnni", "avx2", "neon", "scalar")
    assert document["machine"]["read_bandwidth"] == 2e9
    assert document["workload"] == {"prompt_tokens": 24, "tokens": 3, "repeat": 3}
    assert [m["name"] for m in document["models"]] == [f"{BASE}-java", f"{BASE}-dense"]
    for model in document["models"]:
        assert model["digest"] == tiny.resolve(model["name"])
        assert (model["pattern"], model["values"], model["head"]) == ("dense", "int8", "int8")
        for name in SERIES:
            samples = model[name]["samples"]
            assert len(samples) == 3
            assert min(samples) > 0
            assert model[name]["median"] == statistics.median(samples)
            wide = (max(samples) - min(samples)) / 2
            assert model[name]["spread"] == pytest.approx(wide / statistics.median(samples))
        decode = model["decode_tokens_per_second"]["median"]
        read = model["weight_bytes_per_token"]
        assert 0 < read < tiny.blobs.size(tiny.model(model["name"]).blobs.own) + 100_000
        assert model["decode_bytes_per_second"] == pytest.approx(decode * read)
        assert model["read_bandwidth_share"] == pytest.approx(decode * read / 2e9)
        assert isinstance(model["resident_growth_bytes"], int)
    assert ran.err.splitlines() == ["round 1 of 3", "round 2 of 3", "round 3 of 3"]


def test_the_table_fits_80_columns(tiny: Store, subllm: Command) -> None:
    ran = subllm("bench", f"{BASE}-python", "--repeat", "2", *SMALL)
    assert ran.status == 0, ran.err
    lines = ran.out.splitlines()
    assert lines[0].split() == ["model", f"{BASE}-python", "dense,", "int8,", "head", "int8"]
    assert f"{BASE}-dense" in lines[1]
    assert "memory     reads 2.0 GB/s" in lines
    assert max(len(line.rstrip()) for line in lines) <= 80
    table = lines[lines.index("") + 1 :]
    assert table[0].split() == ["MODEL", "BESIDE", "IT", "RATIO"]
    for title in (
        "prefill of 24, tok/s",
        "decode, tok/s",
        "decode of 8 together, tok/s",
        "first token after 16, ms",
    ):
        (row,) = (line for line in table if line.startswith(title + " "))
        cell = r"[\d,.]+ ± ?\d+\.\d%"
        assert re.fullmatch(rf"{title} +{cell} +{cell} +[\d.]+x", row.rstrip())
    (read,) = (line for line in table if line.startswith("weights read per token, MB"))
    assert read.split()[-1] == "1.00x"


def test_without_the_dense_base(tiny: Store, subllm: Command) -> None:
    ran = subllm("bench", f"{BASE}-java", "--no-dense", "--repeat", "1", *SMALL)
    assert "BESIDE" not in ran.out
    assert ran.err == "round 1 of 1\n"
    remove(tiny, f"{BASE}-dense")
    ran = subllm("bench", f"{BASE}-java", "--repeat", "1", "--json", *SMALL)
    assert [m["name"] for m in ran.json["models"]] == [f"{BASE}-java"]
    assert ran.err.splitlines()[0] == (
        f"to see the dense base beside it, run 'subllm add {BASE}' first"
    )


def test_a_dense_model_of_another_base_is_no_comparison(tiny: Store, subllm: Command) -> None:
    dense = tiny.model(f"{BASE}-dense")
    other = dense.base.model_copy(update={"manifest": sha256_of(b"an older pull")})
    tiny.set_ref(dense.name, tiny.put_manifest(dense.model_copy(update={"base": other})))
    ran = subllm("bench", f"{BASE}-java", "--repeat", "1", "--json", *SMALL)
    assert len(ran.json["models"]) == 1
    assert f"run 'subllm add {BASE}' first" in ran.err


def test_a_dense_model_stands_alone(tiny: Store, subllm: Command) -> None:
    ran = subllm("bench", f"{BASE}-dense", "--repeat", "1", "--json", *SMALL)
    assert [m["name"] for m in ran.json["models"]] == [f"{BASE}-dense"]
    assert ran.err == "round 1 of 1\n"


def test_the_sub_model_made_last_is_the_default(tiny: Store, subllm: Command) -> None:
    for language, created in (("java", "2026-02-01T00:00:00Z"), ("python", "2026-01-01T00:00:00Z")):
        record = RunRecord(
            created=created, seconds=1.0, peak_memory_bytes=1, host="here", threads=1
        )
        tiny.put_run_record(tiny.resolve(f"{BASE}-{language}"), record)
    options = ["--no-dense", "--repeat", "1", "--json", *SMALL]
    ran = subllm("bench", *options)
    assert ran.json["models"][0]["name"] == f"{BASE}-java"
    assert ran.err.startswith(f"measuring {BASE}-java, the one made last")
    remove(tiny, f"{BASE}-java")
    remove(tiny, f"{BASE}-python")
    ran = subllm("bench", *options)
    assert ran.json["models"][0]["name"] == f"{BASE}-dense"
    assert ran.err == "round 1 of 1\n"


def test_torch_claims_no_bytes(
    tiny: Store, subllm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUBLLM_BACKEND", "torch")
    monkeypatch.setenv("SUBLLM_DEVICE", "cpu")
    ran = subllm("bench", f"{BASE}-dense", "--repeat", "1", *SMALL)
    assert ran.status == 0, ran.err
    assert "backend  torch" in ran.out
    assert "decode, tok/s" in ran.out
    assert "bandwidth" not in ran.out
    assert "GB/s" not in ran.out


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([f"{BASE}-pyton"], 2, f"did you mean {BASE}-python"),
        ([BASE], 2, f"'subllm add {BASE}' makes one of it"),
        (["--tokens", "1"], 2, "Invalid value"),
        (["--repeat", "0"], 2, "Invalid value"),
        (["--prompt-tokens", "4000"], 7, "takes 1 to 1024"),
    ],
)
def test_errors_are_one_line_and_no_figures(
    arguments: list[str], status: int, message: str, tiny: Store, subllm: Command
) -> None:
    ran = subllm("bench", *arguments)
    assert (ran.status, ran.out) == (status, "")
    assert message in ran.err
    assert "Traceback" not in ran.err


def test_what_fails_midway_leaves_no_half_document(
    tiny: Store, subllm: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise BackendError("no memory; close something")

    monkeypatch.setattr("subllm.engine.compare.load_engine", fail)
    ran = subllm("bench", f"{BASE}-java", "--json")
    assert (ran.status, ran.out) == (7, "")
    assert ran.err.splitlines()[-1] == "error: no memory; close something"
