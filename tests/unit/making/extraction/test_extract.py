"""The whole streaming extraction on tiny models of every family."""

from __future__ import annotations

import copy
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles.plain_wanda import prune_by_whole_forwards

from subllm.errors import ExtractionError, UnknownNameError
from subllm.kernels.sparsity.packed_file import PackedReader
from subllm.kernels.sparsity.packing import pack, unpack, unpack_mask
from subllm.kernels.sparsity.pattern import Pattern
from subllm.making.extraction.blocks.torch_blocks import TorchBlocks
from subllm.making.extraction.blockwise import BlockRecipe, BlockwiseExtraction
from subllm.making.extraction.checkpoint import Checkpoint
from subllm.making.extraction.dense import DenseForm, add_dense
from subllm.making.extraction.extract import extract
from subllm.making.extraction.prepare import ExtractOptions, open_base
from subllm.making.extraction.steps import BlockWork, Choose
from subllm.making.pruning.allocation import Allocation
from subllm.making.pruning.method import Need, Pruned
from subllm.making.pruning.registry import get_method
from subllm.models.arch.spec import ArchSpec
from subllm.models.store.collect import remove
from subllm.models.store.manifest import ModelManifest
from subllm.models.store.model_files import open_model
from subllm.models.store.verify import verify
from subllm.progress import NullProgress

from .conftest import BASE, prepared_for, tokens_for
from .tiny import FAMILIES


class Notes(NullProgress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pattern", ["50%", "2:4"])
def test_masks_equal_a_whole_model_implementation(store, add_base, family, pattern) -> None:
    model = add_base(family).double()
    options = ExtractOptions("python", pattern=pattern, values="bf16", compute="float64", batch=2)
    report = extract(store, prepared_for(store, options), NullProgress())
    tokens = torch.from_numpy(tokens_for(6, 24).astype(np.int64))
    ratio = 0.5 if pattern == "50%" else None
    expected = prune_by_whole_forwards(model, tokens, ratio, 2, 4)
    files = open_model(store, report.name)
    for layer, masks in enumerate(expected):
        for name, mask in masks.items():
            packed = files.tensor(f"model.layers.{layer}.{name}.weight")
            assert np.array_equal(unpack_mask(packed), mask.numpy()), (layer, name)
    assert report.manifest.density == 0.5


def test_packed_values_are_the_kept_weights(store, add_base) -> None:
    model = add_base("qwen2")
    options = ExtractOptions("python", pattern="2:4", values="bf16", compute="float32")
    report = extract(store, prepared_for(store, options), NullProgress())
    files = open_model(store, report.name)
    name = "model.layers.1.mlp.down_proj.weight"
    weights = model.get_parameter(name).detach().bfloat16().float().numpy()
    packed = files.tensor(name)
    assert np.array_equal(unpack(packed), weights * unpack_mask(packed))
    norm = "model.layers.1.input_layernorm.weight"
    assert np.array_equal(files.vector(norm), model.get_parameter(norm).detach().numpy())


def test_perplexity_and_agreement_match_transformers(store, add_base) -> None:
    model = add_base("gemma3_text")
    held = tokens_for(3, 20, seed=5)
    options = ExtractOptions(
        "python", pattern="8:16", values="int4", compute="float32", heldout={"python": held}
    )
    report = extract(store, prepared_for(store, options), NullProgress())
    ids = torch.from_numpy(held.astype(np.int64))

    def measured() -> tuple[float, torch.Tensor]:
        with torch.no_grad():
            logits = model(ids).logits[:, :-1].double()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        return math.exp(loss), logits.argmax(-1)

    value = report.manifest.perplexity["python"]
    perplexity, dense = measured()
    assert value.before == pytest.approx(perplexity, rel=1e-4)
    files = open_model(store, report.name)
    for entry in report.manifest.tensors:
        if entry.values != "f32":
            model.get_parameter(entry.name).data = torch.from_numpy(
                unpack(files.tensor(entry.name))
            )
    perplexity, pruned = measured()
    assert value.after == pytest.approx(perplexity, rel=1e-4)
    assert value.tokens == 3 * 19
    assert value.agreement is not None and 0 < value.agreement < 1
    assert round(value.agreement * value.tokens) == int((dense == pruned).sum())


def test_tensor_table_counts(store, add_base) -> None:
    add_base("starcoder2")
    report = extract(
        store, prepared_for(store, ExtractOptions("java", pattern="25%")), NullProgress()
    )
    own = [e for e in report.manifest.tensors if e.blob == "own"]
    assert len(own) == 3 * 6
    for entry in own:
        rows, columns = entry.shape
        assert entry.kept == rows * (columns - columns // 4)
    assert {e.name for e in report.manifest.tensors if e.blob == "shared"} >= {
        "model.embed_tokens.weight", "model.norm.bias", "model.layers.0.mlp.c_fc.bias",
    }  # fmt: skip


@pytest.mark.parametrize("family", ["llama", "qwen2"])  # with a head of its own, and tied
def test_a_large_head_gets_a_screening_plane(store, add_base, monkeypatch, family) -> None:
    monkeypatch.setattr("subllm.making.extraction.shared.LEAST_ROWS", 1)
    add_base(family)
    manifest = add_dense(store, BASE, NullProgress()).manifest
    spec = ArchSpec.from_dict(manifest.arch)
    with open_model(store, manifest.name) as files:
        found = [entry.name for entry in manifest.tensors if entry.values != "f32"]
        assert [name for name in found if files.screen(name)] == [spec.head_name]
    assert all(result.ok for result in verify(store))
    monkeypatch.undo()  # a vocabulary as small as this one gets none
    plain = add_dense(store, BASE, NullProgress(), DenseForm(head="bf16"), tag="plain").manifest
    with open_model(store, plain.name) as files:
        assert files.screen(spec.head_name) is None


def test_the_run_says_in_which_dtype_blocks_ran(store, add_base) -> None:
    add_base("llama")
    options = ExtractOptions("python", method="magnitude", compute="float32")
    report = extract(store, prepared_for(store, options), NullProgress())
    run = store.run_record(report.digest)
    assert run is not None and run.compute == "float32"


def test_a_parameter_of_the_method_is_part_of_the_plan(store, add_base) -> None:
    add_base("qwen2")

    def made(tag: str, **params: float) -> ModelManifest:
        options = ExtractOptions("python", method="ria", method_params=params, tag=tag)
        return extract(store, prepared_for(store, options), NullProgress()).manifest

    plain, same, other = made("x"), made("y", a=0.5), made("z", a=1.5)
    assert plain.method.params == same.method.params == {"a": 0.5}
    assert plain.plan == same.plan != other.plan
    assert other.method.params == {"a": 1.5}
    assert plain.blobs.own != other.blobs.own


def mixed(spec: ArchSpec) -> Allocation:
    """A pattern for each matrix, by turns: neighbours and layers differ."""
    turns = cycle(map(Pattern.parse, ("8:16", "dense", "12:16", "50%", "10:16")))
    return Allocation.of_patterns(dict(zip(spec.matrices(), turns, strict=False)))


@pytest.mark.parametrize("values", ["int8", "int4"])
@pytest.mark.parametrize("compute", ["float32", "int8"])
def test_every_matrix_has_its_own_pattern(store, add_base, values, compute) -> None:
    model = add_base("qwen2")
    held = tokens_for(3, 20, seed=5)
    options = ExtractOptions("python", values=values, compute=compute, heldout={"python": held})
    spec = open_base(store, BASE)[2].spec
    allocation = mixed(spec)
    report = extract(store, prepared_for(store, options, allocation=allocation), NullProgress())
    manifest = report.manifest
    assert manifest.pattern == str(allocation) and manifest.pattern.startswith("mixed-")
    assert all(result.ok for result in verify(store))
    files = open_model(store, report.name)
    kept = 0
    for entry in manifest.tensors:
        if entry.blob == "own":
            pattern = allocation.of(entry.name)
            assert entry.pattern == files.tensor(entry.name).pattern == str(pattern)
            assert entry.kept == entry.shape[0] * pattern.kept_per_row(entry.shape[1])
            kept += entry.kept
        if entry.values != "f32":
            weights = torch.from_numpy(unpack(files.tensor(entry.name)))
            model.get_parameter(entry.name).data = weights
    assert manifest.density == pytest.approx(kept / (spec.block_params() * 3), rel=1e-5)
    ids = torch.from_numpy(held.astype(np.int64))
    with torch.no_grad():
        logits = model(ids).logits[:, :-1].double()
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    rounded = 1e-4 if compute == "float32" else 0.02
    assert manifest.perplexity["python"].after == pytest.approx(math.exp(loss), rel=rounded)


def test_masks_of_a_mixed_model_equal_a_whole_model_implementation(store, add_base) -> None:
    """The first block dense, so that the statistics of the second are the base's."""
    model = add_base("llama").double()
    spec = open_base(store, BASE)[2].spec
    dense = {name: Pattern.parse("dense") for name in spec.matrices() if "layers.0." in name}
    allocation = Allocation(Pattern.parse("2:4"), dense)
    options = ExtractOptions("python", values="bf16", compute="float64", batch=2)
    report = extract(store, prepared_for(store, options, allocation=allocation), NullProgress())
    tokens = torch.from_numpy(tokens_for(6, 24).astype(np.int64))
    expected = prune_by_whole_forwards(model, tokens, None, 2, 4, first=1)
    files = open_model(store, report.name)
    for layer, masks in enumerate(expected, 1):
        for name, mask in masks.items():
            packed = files.tensor(f"model.layers.{layer}.{name}.weight")
            assert np.array_equal(unpack_mask(packed), mask.numpy()), (layer, name)
    assert report.manifest.density == pytest.approx(2 / 3, rel=1e-5)


class Halved:
    """A step after choosing: every kept weight is half of the source's."""

    def __init__(self) -> None:
        self.layers: list[int] = []

    def __call__(self, work: BlockWork) -> None:
        self.layers.append(work.layer)
        for name, pruned in work.matrices.items():
            source = torch.from_numpy(work.blocks.source(work.layer, name))
            work.matrices[name] = Pruned(pruned.mask, source / 2)


def test_a_step_between_choosing_and_packing_replaces_weights(store, add_base, tmp_path) -> None:
    """The states that the next block is chosen by come from the replaced weights."""
    model = add_base("llama")
    reader = open_base(store, BASE)[2]
    allocation = Allocation(Pattern.parse("2:4"))
    tokens = tokens_for(4, 16)
    blocks = TorchBlocks(reader, torch.device("cpu"), torch.float64)
    states = blocks.embed(tokens, 2)
    step = Halved()
    recipe = BlockRecipe([Choose(get_method("wanda"), allocation), step], allocation, "bf16")
    loop = BlockwiseExtraction(blocks, recipe, states, [], 2, Checkpoint(tmp_path / "work"))
    files = loop.run(NullProgress())
    assert step.layers == [0, 1, 2]

    model = model.double()
    ids = torch.from_numpy(tokens.astype(np.int64))
    for layer, file in enumerate(files):
        # Pruning the halved blocks before it once more keeps what is kept.
        masks = prune_by_whole_forwards(copy.deepcopy(model), ids, None, 2, 4)[layer]
        with PackedReader(file) as packed:
            for name, mask in masks.items():
                full = f"model.layers.{layer}.{name}.weight"
                tensor = packed.tensor(full)
                assert np.array_equal(unpack_mask(tensor), mask.numpy()), full
                half = torch.from_numpy(reader.read(full)) / 2 * mask
                assert np.array_equal(unpack(tensor), half.bfloat16().float().numpy()), full
                model.get_parameter(full).data.copy_(half)


@pytest.mark.parametrize("values", ["bf16", "int4"])
def test_sparsegpt_packs_what_it_updated(store, add_base, values) -> None:
    """Outputs of a matrix come closer to the dense ones than under Wanda's mask."""
    model = add_base("qwen2")
    reader = open_base(store, BASE)[2]

    def made(method: str) -> dict[str, np.ndarray]:
        options = ExtractOptions(
            "python", method=method, pattern="8:16", values=values, compute="float32", tag=method
        )
        report = extract(store, prepared_for(store, options), NullProgress())
        assert report.manifest.density == 0.5
        with open_model(store, report.name) as files:
            own = [entry.name for entry in report.manifest.tensors if entry.blob == "own"]
            return {name: unpack(files.tensor(name)) for name in own}

    updated, masked = made("sparsegpt"), made("wanda")
    blocks = TorchBlocks(reader, torch.device("cpu"), torch.float32)
    states = blocks.embed(tokens_for(6, 24), 2)
    blocks.load(0)
    needs = frozenset({Need.FULL_HESSIAN})
    hessians = blocks.collect(0, states, 2, needs)
    for linear in reader.spec.linears:
        name = f"model.layers.0.{linear.name}.weight"
        dense = model.get_parameter(name).detach().double()
        hessian = hessians[linear.group][Need.FULL_HESSIAN].double()

        def error(of: np.ndarray, dense=dense, hessian=hessian) -> float:
            missing = torch.from_numpy(of).double() - dense
            return float(((missing @ hessian) * missing).sum())

        assert error(updated[name]) < 0.9 * error(masked[name]), name
        kept = updated[name] != 0
        assert (kept.reshape(len(kept), -1, 16).sum(-1) <= 8).all()


def test_magnitude_needs_no_calibration(store, add_base) -> None:
    model = add_base("llama")
    prepared = prepared_for(store, ExtractOptions("general", method="magnitude", pattern="50%"))
    assert prepared.tokens is None
    report = extract(store, prepared, NullProgress())
    files = open_model(store, report.name)
    name = "model.layers.2.self_attn.q_proj.weight"
    weights = model.get_parameter(name).detach().bfloat16().float().abs().numpy()
    mask = unpack_mask(files.tensor(name))
    for row in range(len(weights)):
        assert weights[row][mask[row]].min() >= weights[row][~mask[row]].max()


def test_second_time_finds_the_cache_and_shares_blobs(store, add_base) -> None:
    add_base("qwen2")
    options = ExtractOptions("python")
    first = extract(store, prepared_for(store, options), NullProgress())
    again = extract(store, prepared_for(store, options), NullProgress())
    assert (first.cached, again.cached) == (False, True)
    assert again.digest == first.digest
    java = extract(store, prepared_for(store, ExtractOptions("java")), NullProgress())
    assert java.manifest.blobs.shared == first.manifest.blobs.shared
    dense = add_dense(store, BASE, NullProgress())
    assert dense.name == f"{BASE}-dense"
    assert dense.manifest.blobs.shared == first.manifest.blobs.shared
    renamed = extract(store, prepared_for(store, ExtractOptions("python", tag="x")), NullProgress())
    assert renamed.cached and renamed.manifest.blobs.own == first.manifest.blobs.own
    assert isinstance(store.manifest(f"{BASE}-python-x"), ModelManifest)


def test_a_shared_blob_for_each_type_of_head(store, add_base) -> None:
    model = add_base("llama")

    def made(language: str, head: str) -> ModelManifest:
        options = ExtractOptions(language, method="magnitude", head=head)
        return extract(store, prepared_for(store, options), NullProgress()).manifest

    python, java, small = made("python", "int8"), made("java", "int8"), made("cpp", "int4")
    assert python.blobs.shared == java.blobs.shared != small.blobs.shared
    assert made("general", "int4").blobs.shared == small.blobs.shared
    assert small.blobs.own == python.blobs.own
    assert add_dense(store, BASE, NullProgress(), DenseForm(head="int4")).manifest.blobs.shared == (
        small.blobs.shared
    )
    weights = model.get_parameter("lm_head.weight").detach().numpy()
    for name, head in ((python.name, "int8"), (small.name, "int4")):
        with open_model(store, name) as files:
            for matrix in ("lm_head.weight", "model.embed_tokens.weight"):
                assert files.tensor(matrix).values == head
            expected = unpack(pack(weights, None, "dense", head))
            assert np.array_equal(unpack(files.tensor("lm_head.weight")), expected)


def test_dense_base_holds_every_weight(store, add_base) -> None:
    model = add_base("mistral")
    report = add_dense(store, BASE, NullProgress(), DenseForm(values="bf16", head="bf16"))
    files = open_model(store, report.name)
    for entry in report.manifest.tensors:
        if entry.values == "bf16":
            expected = model.get_parameter(entry.name).detach().bfloat16().float().numpy()
            assert np.array_equal(unpack(files.tensor(entry.name)), expected), entry.name


def test_same_plan_gives_the_same_digests(store, add_base, tmp_path: Path) -> None:
    add_base("llama")
    held = {"python": tokens_for(2, 16, seed=3)}
    options = ExtractOptions("python", heldout=held)
    first = extract(store, prepared_for(store, options), NullProgress())
    remove(store, first.name)
    second = extract(store, prepared_for(store, options), NullProgress())
    assert not second.cached
    assert second.digest == first.digest


# Imports once, then forks a process for each line. Nothing is computed before, so there are no
# threads that a fork would lose.
_STARTER = """
import json, os, sys, time
from pathlib import Path
sys.path[:0] = {paths!r}
import subllm.making.extraction.checkpoint as checkpoint
checkpoint._INTERVAL_S = 0.0
from subllm.making.extraction.extract import extract
from subllm.making.extraction.prepare import ExtractOptions
from subllm.progress import NullProgress
from subllm.models.store.store import Store
from unit.making.extraction.conftest import prepared_for

def run(home, stop):
    def on_block(layer, masks):
        print("block", layer, os.getpid(), flush=True)
        if layer == stop:
            time.sleep(600)
    store = Store(Path(home))
    extract(store, prepared_for(store, ExtractOptions("python")), NullProgress(), on_block=on_block)

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        try:
            run(**json.loads(line))
        finally:
            os._exit(1)
    os.waitpid(child, 0)
    print("ended", flush=True)
"""


@pytest.fixture(scope="module")
def extract_until() -> Iterator[Callable[[Path, int], None]]:
    """Extracts in another process, which is killed in the middle of a block."""
    tests = Path(__file__).parents[3]
    code = _STARTER.format(paths=[str(tests), str(tests.parent / "src")])
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdin is not None and starter.stdout is not None
        said = starter.stdout

        def until(home: Path, stop: int) -> None:
            print(json.dumps({"home": str(home), "stop": stop}), file=starter.stdin, flush=True)
            for line in said:
                word, *numbers = line.split()
                if word == "ended":
                    return
                if int(numbers[0]) == stop:
                    os.kill(int(numbers[1]), signal.SIGKILL)
            pytest.fail("the process that starts others is gone")

        yield until
        starter.stdin.close()


@pytest.mark.parametrize(
    "stop", [pytest.param(0, marks=pytest.mark.long), 1, pytest.param(2, marks=pytest.mark.long)]
)
def test_killed_run_resumes_at_its_block(
    store, add_base, tmp_path: Path, stop: int, extract_until
) -> None:
    add_base("qwen2")
    reference = extract(store, prepared_for(store, ExtractOptions("python")), NullProgress()).digest
    remove(store, f"{BASE}-python")
    extract_until(tmp_path / "home", stop)
    assert store.names().get(f"{BASE}-python") is None
    assert all(result.ok for result in verify(store, None, NullProgress()))
    notes = Notes()
    report = extract(store, prepared_for(store, ExtractOptions("python")), notes)
    assert report.resumed_at == stop
    assert report.digest == reference
    if stop:
        assert any(f"block {stop + 1} of 3" in note for note in notes.notes)


def test_tokens_outside_the_vocabulary_are_refused(store, add_base) -> None:
    add_base("llama")
    prepared = prepared_for(store, ExtractOptions("python"))
    assert prepared.tokens is not None
    prepared.tokens[0, 0] = 5000
    with pytest.raises(ExtractionError, match="vocabulary"):
        extract(store, prepared, NullProgress())
    with pytest.raises(UnknownNameError):
        store.resolve(f"{BASE}-python")
