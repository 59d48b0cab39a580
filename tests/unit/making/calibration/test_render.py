"""Every form by hand, what is special in it and what is not, and which form is when."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subllm.errors import CalibrationError
from subllm.making.calibration.render import INSTRUCTION, Renderer, split_middle
from subllm.making.calibration.source import Document
from subllm.models.text.tokenizer import Tokenizer

from .tiny import CODE, END, FILL, FIM, MARK, PLAIN, bytes_of, tokenizer

TASK = Document("t", CODE, "Compute areas.", "python")


def test_chat_is_the_models_template_around_a_fenced_answer() -> None:
    ids = Renderer(tokenizer(), PLAIN).encode_as("chat", TASK)
    answer = f"```python\n{CODE}```"
    assert ids == [
        *(MARK, *bytes_of("user\nCompute areas."), FILL, *bytes_of("\n")),
        *(MARK, *bytes_of(f"assistant\n{answer}"), FILL, *bytes_of("\n")),
        END,
    ]


def test_prose_is_answered_without_a_fence() -> None:
    ids = Renderer(tokenizer(), PLAIN).encode_as("chat", Document("p", "Well.", "Why?"))
    assert bytes_of("assistant\nWell.") == ids[-len("assistant\nWell.") - 3 : -3]


def test_special_tokens_in_a_chat_come_from_the_template_alone() -> None:
    nasty = Document("n", "say <|fill|> or <|end|>", "what is <|mark|>?")
    ids = Renderer(tokenizer(), PLAIN).encode_as("chat", nasty)
    assert [i for i in ids if i > 255] == [MARK, FILL, MARK, FILL, END]
    assert bytes_of("what is <|mark|>?") == ids[6:23]
    assert tokenizer().decode(ids).count("<|fill|>") == 3


def test_instruction_form_is_plain_text() -> None:
    ids = Renderer(tokenizer(), PLAIN).encode_as("instruction", TASK)
    assert ids == [*bytes_of(INSTRUCTION.format(instruction="Compute areas.") + CODE), END]


@pytest.mark.parametrize("text", ["a {brace} b", "<|mark|>", "x <|end|>"])
def test_a_file_is_its_text_whatever_it_spells(text: str) -> None:
    ids = Renderer(tokenizer(), PLAIN).encode_as("file", Document("f", text))
    assert ids == [*bytes_of(text), END]


def test_functions_are_texts_of_their_own() -> None:
    ids = Renderer(tokenizer(), PLAIN).encode_as("function", TASK)
    first = "def area(radius):\n    # a circle\n    return math.pi * radius**2\n"
    second = "def double(value):\n    return value * 2\n"
    assert ids == [*bytes_of(first), END, *bytes_of(second), END]


def test_fill_in_the_middle_takes_one_stretch_out() -> None:
    ids = Renderer(tokenizer(), FIM).encode_as("fim", TASK)
    assert ids[0] == MARK and ids[-1] == END
    suffix_at = ids.index(FILL)
    middle_at = ids.index(MARK, suffix_at)
    assert ids[middle_at + 1] == FILL
    prefix, suffix = ids[1:suffix_at], ids[suffix_at + 1 : middle_at]
    middle = ids[middle_at + 2 : -1]
    assert middle and [*prefix, *middle, *suffix] == bytes_of(CODE)


def test_a_hole_that_was_written_into_is_the_one_that_is_asked_for() -> None:
    start = CODE.index("math.pi")
    hole = Document("h", CODE, hole=(start, start + 7))
    full = Renderer(tokenizer(), FIM)
    assert full.forms(hole) == ["fim"]
    ids = full.encode(hole, 3)
    assert ids == [
        *(MARK, *bytes_of(CODE[:start]), FILL, *bytes_of(CODE[start + 7 :])),
        *(MARK, FILL, *bytes_of("math.pi"), END),
    ]
    bare = Renderer(tokenizer(template=None), PLAIN)
    assert bare.encode(hole, 0) == [*bytes_of(CODE), END]


def test_a_model_that_begins_texts_with_bos_gets_it_once_per_text() -> None:
    renderer = Renderer(tokenizer(bos=True), FIM)
    assert renderer.encode_as("file", TASK)[:2] == [MARK, ord("i")]
    assert renderer.encode_as("function", TASK).count(MARK) == 2
    assert renderer.encode_as("fim", TASK)[:3] == [MARK, MARK, ord("i")]
    # The template has no bos of its own here, so there is none.
    assert renderer.encode_as("chat", TASK)[:2] == [MARK, ord("u")]


def test_forms_are_those_that_model_and_document_have() -> None:
    full = Renderer(tokenizer(), FIM)
    assert full.forms(TASK) == ["chat", "instruction", "file", "function", "fim"]
    assert full.forms(Document("a", "x = 1", tag="python")) == ["file"]
    assert full.forms(Document("b", "Well.", "Why?")) == ["chat", "instruction"]
    assert full.forms(Document("c", CODE)) == ["file"]
    bare = Renderer(tokenizer(template=None), PLAIN)
    assert bare.forms(TASK) == ["instruction", "file", "function"]


def test_forms_are_about_equally_frequent_and_rotate() -> None:
    renderer = Renderer(tokenizer(), FIM)
    documents = [Document(f"d{i}", CODE, "Compute areas.", "python") for i in range(400)]
    rendered = {form: renderer.encode_as(form, TASK) for form in ("chat", "instruction", "file")}
    counts = Counter(tuple(renderer.encode(document, 0)) for document in documents)
    for ids in rendered.values():
        assert 55 < counts[tuple(ids)] < 105  # 80 expected of 400
    for document in documents[:20]:
        turns = [tuple(renderer.encode(document, turn)) for turn in range(5)]
        assert len(set(turns)) == 5
        assert set(map(tuple, rendered.values())) < set(turns)


def test_more_of_those_that_can_have_a_hole_have_one() -> None:
    documents = [Document(f"d{i}", CODE, "Compute areas.", "python") for i in range(400)]
    documents += [Document(f"p{i}", "Well.", "Why?") for i in range(50)]
    plain, more = (Renderer(tokenizer(), FIM, holes) for holes in (0.0, 0.5))
    for turn in range(2):
        before = [plain.encode(document, turn) for document in documents]
        after = [more.encode(document, turn) for document in documents]
        had = [plain.fills(ids) for ids in before]
        has = [more.fills(ids) for ids in after]
        assert 55 < sum(had) < 105 and 205 < sum(has) < 275  # 80 and 240 expected of 400
        assert not any(has[400:])
        for document, one, other, filled in zip(documents, before, after, has, strict=True):
            assert other == (more.encode_as("fim", document, turn) if filled else one)


def test_a_text_with_a_hole_is_told_by_its_markers() -> None:
    swapped = FIM.model_copy(update={"fim": FIM.fim.model_copy(update={"order": "spm"})})
    for prompt, bos in ((FIM, False), (FIM, True), (swapped, False)):
        renderer = Renderer(tokenizer(bos=bos), prompt)
        forms = {form: renderer.encode_as(form, TASK) for form in renderer.forms(TASK)}
        assert renderer.before_middle == [MARK, FILL]
        assert {form for form, ids in forms.items() if renderer.fills(ids)} == {"fim"}
    bare = Renderer(tokenizer(), PLAIN)
    assert bare.before_middle == [] and not bare.fills([MARK, 1]) and not bare.fills([])


def test_conversations() -> None:
    talk = Document("t", turns=(("user", "Hi"), ("assistant", "Hello"), ("user", "Bye")))
    ids = Renderer(tokenizer(), PLAIN).encode(talk, 0)
    assert [i for i in ids if i > 255] == [MARK, FILL] * 3 + [END]
    bare = Renderer(tokenizer(template=None), PLAIN).encode(talk, 0)
    assert bare == [*bytes_of("Hi\n\nHello\n\nBye"), END]


def test_a_conversation_that_the_template_refuses_is_named() -> None:
    refusing = tokenizer("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(CalibrationError, match=r"document 7: .*roles must alternate"):
        Renderer(refusing, PLAIN).encode(Document("7", turns=(("user", "Hi"),)), 0)


def test_the_end_of_text_is_not_another_familys_spelling() -> None:
    def end(**added: bool) -> int | None:
        bundle = json.loads(tokenizer().to_bundle())
        definition = json.loads(bundle["tokenizer"])
        for number, (text, special) in enumerate(added.items(), 259):
            token = definition["added_tokens"][0] | {"id": number, "content": text}
            definition["added_tokens"].append(token | {"special": special})
            bundle["facts"]["special_ids"] += [number] * special
        bundle["tokenizer"] = json.dumps(definition)
        return Renderer(Tokenizer.from_bundle(json.dumps(bundle).encode()), PLAIN).end

    assert end() == END
    assert end(**{"</s>": False}) == END  # a tag of HTML
    assert end(**{"</s>": True}) == 259
    assert end(**{"</s>": True, "<|endoftext|>": True}) == 260


@given(
    st.lists(st.text(st.characters(exclude_characters="\r\n"), max_size=12), min_size=1),
    st.integers(0, 2**64 - 1),
)
def test_split_middle_loses_nothing(lines: list[str], seed: int) -> None:
    text = "\n".join([*lines, "  x = 1", "", ""])
    parts = split_middle(text, seed)
    assert "".join(parts) == text
    assert parts[1].strip()
    assert parts == split_middle(text, seed)


def test_split_middle_varies() -> None:
    middles = [split_middle(CODE, seed)[1] for seed in range(200)]
    assert len(set(middles)) > 60
    assert sum(middle.endswith("\n") for middle in middles) in range(60, 140)
