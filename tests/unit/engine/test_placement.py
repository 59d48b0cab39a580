"""What fits which card, and what is said of it: numbers in, a placement out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from oracles.packed_models import NAME, packed_oracle, store_model

from subllm.engine.cards import Cards, find_cards, has_kernels, why_unusable
from subllm.engine.choice import choose_placement, forms_of, named
from subllm.engine.computing import Computing
from subllm.engine.loader import load_engine
from subllm.engine.placement import RESERVED, Card, Demand, Form, given, place
from subllm.errors import BackendError, DeviceError
from subllm.models.arch.kv_size import kv_bytes

GB = 10**9
ALL: tuple[Form, ...] = ("packed", "bf16", "int8", "nf4")
# Of Qwen2.5-Coder-7B: 28 layers of 233 million weights, 152,064 x 3,584 twice.
SEVEN = Demand(
    name="qwen2.5-coder:7b-dense",
    packed=int(7.9 * GB),
    blocks=28 * 233_000_000,
    rows=28 * (3584 + 2 * 512 + 3584 + 2 * 18944 + 3584),
    ends=2 * 152_064 * 3584,
    layers=28,
    largest=18944 * 3584,
    kv=28 * 4 * 128 * 2 * 2 * 8192,
    context=8192,
    dense=True,
    values="int8",
)
SUB = replace(SEVEN, name="qwen2.5-coder:7b-python", packed=int(3.8 * GB), dense=False)


def card(
    free: float, total: float = 0, index: int = 0, capability: tuple[int, int] = (8, 6)
) -> Card:
    return Card(index, "NVIDIA Test", int((total or free) * GB), int(free * GB), capability)


def test_sizes_of_the_forms() -> None:
    """Against the table of sizes that are known of such a model: 15.2, 7.7 and 5.9 GB."""
    assert SEVEN.weights("bf16") / GB == pytest.approx(15.2, abs=0.1)
    assert SEVEN.weights("int8") / GB == pytest.approx(8.7, abs=0.1)  # ends stay bf16
    assert SEVEN.weights("nf4") / GB == pytest.approx(5.85, abs=0.1)
    assert SEVEN.kv / GB == pytest.approx(0.47, abs=0.01)
    for form in ALL:
        assert SEVEN.needed(form) == SEVEN.weights(form) + SEVEN.kv + SEVEN.working(form)


@pytest.mark.parametrize(
    ("free", "forms", "form"),
    [
        (24, ALL, "packed"),
        (24, ALL[1:], "bf16"),
        (12, ALL[1:], "int8"),
        (8, ALL[1:], "nf4"),
        (6, ALL[1:], None),
        (8, ("bf16",), None),
        (8, ALL, "nf4"),  # of a file of int8
    ],
)
def test_the_form_that_fits(free: float, forms: tuple[Form, ...], form: Form | None) -> None:
    found = place(SEVEN, [card(free)], forms)
    assert (found.device, found.form) == (("cuda:0", form) if form else ("cpu", "packed"))


@pytest.mark.parametrize("form", ALL)
def test_one_byte_decides(form: Form) -> None:
    exact = SEVEN.needed(form)
    fits = Card(0, "Test", exact, exact)
    assert place(SEVEN, [fits], [form]).form == form
    assert place(SEVEN, [fits], [form]).kv_room == SEVEN.kv  # one context, and no more
    assert place(SEVEN, [replace(fits, free=exact - 1)], [form]).device == "cpu"


def test_a_sub_model_is_not_rounded() -> None:
    assert place(SUB, [card(8)], ALL[1:]).device == "cpu"
    assert place(SUB, [card(8)], ALL).form == "packed"


def test_the_card_with_the_most_free_memory() -> None:
    cards = [card(9, 24, 0), card(20, 24, 1), card(11, 24, 2)]
    assert place(SEVEN, cards, ALL).device == "cuda:1"
    assert place(SEVEN, [card(9, index=i) for i in (1, 0)], ALL).device == "cuda:0"
    # One model fills a card, the next goes to another.
    cards[1] = card(20 - 8.7, 24, 1)
    assert place(SUB, cards, ALL).device == "cuda:1"
    cards[1] = card(4, 24, 1)
    assert place(SUB, cards, ALL).device == "cuda:2"


def test_a_card_that_is_too_old_for_the_kernels() -> None:
    old, new = card(24, index=0, capability=(7, 5)), card(10, index=1)
    assert place(SUB, [old, new], ALL).device == "cuda:1"
    assert place(SUB, [old], ALL).form == "bf16"
    assert "compute capability 8.0, which NVIDIA Test has not" in place(SUB, [old], ("packed",)).why


def test_room_for_keys_and_values() -> None:
    room = place(SUB, [card(6)], ALL).kv_room
    assert room == 6 * GB - SUB.weights("packed") - SUB.working("packed")
    assert place(SUB, [card(80)], ALL).kv_room == 8 * SUB.kv


def test_what_is_said() -> None:
    assert place(SUB, [card(11.2, 12)], ALL).why == (
        "qwen2.5-coder:7b-python runs on cuda:0 (NVIDIA Test, 11.2 GB of 12.0 GB free): packed, "
        "3.8 GB + 470 MB for a context of 8,192"
    )
    said = place(replace(SEVEN, values="int4"), [card(8)], ALL[1:]).why
    assert "rounded to NF4 on load (a second time: its file is int4)" in said
    assert "because 16.2 GB in bf16 do not fit" in said
    said = place(SUB, [card(4, 8), card(3, 8, 1)], ALL).why
    assert said.startswith("qwen2.5-coder:7b-python runs on the processor: 3.8 GB (packed) + ")
    assert said.endswith("do not fit cuda:0 (NVIDIA Test, 4.0 GB of 8.0 GB free)")


def test_a_must_that_does_not_fit() -> None:
    with pytest.raises(DeviceError, match=r"cannot be loaded: 3.8 GB \(packed\).*choose a smaller"):
        place(SUB, [card(4)], ALL, must=True)


def test_layers_beside_the_card() -> None:
    forms = (*ALL[1:], "split")
    found = place(SUB, [card(8)], forms, must=True)
    assert (found.form, found.slow) == ("split", True)
    assert found.layers is not None
    layer = 2 * SUB.blocks // 28
    used = 2 * SUB.ends + SUB.kv + SUB.working("split") + (found.layers + 1) * layer
    assert used <= 8 * GB < used + layer
    assert f"{found.layers} of its 28 layers stay there" in found.why
    assert "is slow" in found.why
    assert place(SUB, [card(6)], forms, must=True).layers < found.layers
    with pytest.raises(DeviceError):
        place(SUB, [card(2.5)], forms, must=True)
    assert place(SEVEN, [card(8)], forms, must=True).form == "nf4"  # rather than copying


def test_demands_are_those_of_the_manifest(tmp_path: Path) -> None:
    packed, _ = packed_oracle("qwen2", "int8", "8:16")
    spec = packed.spec
    manifest = store_model(tmp_path / "store", packed).model(NAME)
    found = Demand.of(manifest, 1234, 200, "bfloat16")
    matrices = [tensor for name, tensor in packed.packed.items() if name.startswith("model.layers")]
    assert found.packed == found.weights("packed") == 1234
    assert found.blocks == sum(t.shape[0] * t.shape[1] for t in matrices)
    assert found.rows == sum(t.shape[0] for t in matrices)
    assert found.largest == max(t.shape[0] * t.shape[1] for t in matrices)
    assert found.ends == spec.vocab_size * spec.hidden_size  # tied
    assert found.kv == kv_bytes(spec, 200, "bfloat16")
    assert not found.dense
    assert found.working("bf16") == RESERVED


def test_forms_of_what_was_asked_for() -> None:
    assert forms_of("cuda", must=True) == ("packed",)
    assert forms_of("torch", must=False)[0] == "bf16"
    assert "packed" not in forms_of("torch", must=True)
    assert "split" not in forms_of("auto", must=False)
    assert forms_of("auto", must=True)[-1] == "split"


def test_cards_by_name() -> None:
    cards = Cards((card(8, index=0), card(8, index=2)), "cuda:1: it was lost")
    assert named(cards, "cuda") == cards.usable
    assert [c.index for c in named(cards, "cuda:2")] == [2]
    with pytest.raises(
        DeviceError, match="there is no cuda:1 here that works, only cuda:0, cuda:2"
    ):
        named(cards, "cuda:1")
    assert named(Cards(), "cuda:1") == ()


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "The NVIDIA driver on your system is too old (found version 11040).\nPlease",
            "update the driver",
        ),
        ("CUDA error: CUDA driver version is insufficient for CUDA runtime version", "update"),
        ("Torch not compiled with CUDA enabled", "built without CUDA"),
        ("Found no NVIDIA driver on your system. Please check", "no NVIDIA driver answers"),
        ("CUDA error: GPU is lost\nCUDA kernel errors might", "was lost; restart the server"),
        ("CUDA error: something else\nmore", "CUDA error: something else"),
    ],
)
def test_what_is_wrong_with_a_card(message: str, said: str) -> None:
    line = why_unusable(message)
    assert said in line
    assert "\n" not in line


@pytest.mark.skipif(bool(find_cards().usable), reason="has a GPU")
def test_a_machine_without_a_card(tmp_path: Path) -> None:
    assert choose_placement(SUB, "auto", "auto")[0] == "native"
    assert choose_placement(SUB, "torch", "auto")[1].device == "cpu"
    store = store_model(tmp_path / "store", packed_oracle("qwen2", "int8")[0])
    for device in ("cuda", "cuda:3"):
        with pytest.raises(DeviceError, match=r"no GPU is usable here \(.*\); choose cpu"):
            load_engine(store, NAME, computing=Computing(device=device))
    with pytest.raises(BackendError, match="use --backend"):
        choose_placement(SUB, "native", "cuda")


def test_what_is_asked_for_on_cards_given_by_numbers() -> None:
    cards = Cards((card(24, 24, 0), card(40, 48, 1)))
    packed = has_kernels()
    for device in ("auto", "cuda", "cuda:1"):
        backend, found = choose_placement(SUB, "auto", device, cards)
        assert found.device == "cuda:1"
        assert (backend, found.form) == (("cuda", "packed") if packed else ("torch", "bf16"))
        assert choose_placement(SUB, "torch", device, cards)[1].form == "bf16"
    assert choose_placement(SUB, "torch", "cuda:0", cards)[1].device == "cuda:0"
    small = Cards((card(3, 24),))
    assert choose_placement(SUB, "auto", "auto", small)[0] == "native"
    assert choose_placement(SUB, "torch", "auto", small)[:1] == ("torch",)
    with pytest.raises(DeviceError, match="cannot be loaded"):
        choose_placement(SUB, "auto", "cuda", small)
    with pytest.raises(DeviceError, match="there is no cuda:7 here that works, only cuda:0"):
        choose_placement(SUB, "auto", "cuda:7", small)
    for device in ("auto", "cpu"):
        assert choose_placement(SUB, "native", device, cards) == ("native", given("cpu"))
    assert choose_placement(SUB, "cuda", "cpu", cards) == ("cuda", given("cpu"))
    if not packed:
        with pytest.raises(DeviceError, match="pip install triton"):
            choose_placement(SUB, "cuda", "auto", cards)


def test_a_driver_that_is_too_old_is_said() -> None:
    cards = Cards(problem=why_unusable("The NVIDIA driver on your system is too old (found 1)."))
    backend, found = choose_placement(SUB, "auto", "auto", cards)
    assert (backend, found.device) == ("native", "cpu")
    assert "runs on the processor: the NVIDIA driver is too old" in found.why
    assert found.slow  # a warning
    with pytest.raises(DeviceError, match=r"no GPU is usable here \(the NVIDIA driver is too old"):
        choose_placement(SUB, "auto", "cuda", cards)
