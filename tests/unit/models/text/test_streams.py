"""Text as it comes: fill-in-the-middle prompts, half characters, stop strings."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.tiny_models import END, FILL, MARK, tokenizer

from subllm.models.catalog.prompt import FimSpec
from subllm.models.text import fim
from subllm.models.text.stopper import StopMatcher
from subllm.models.text.stream_decoder import StreamDecoder

QWEN = FimSpec(
    prefix="<|fim_prefix|>", suffix="<|fim_suffix|>", middle="<|fim_middle|>",
    file_separator="<|file_sep|>", repo_name="<|repo_name|>",
)  # fmt: skip
DEEPSEEK = FimSpec(prefix="<｜fim▁begin｜>", suffix="<｜fim▁hole｜>", middle="<｜fim▁end｜>")
CODELLAMA_SPM = FimSpec(prefix="▁<PRE>", suffix="▁<SUF>", middle="▁<MID>", order="spm")
STARCODER = FimSpec(
    prefix="<fim_prefix>", suffix="<fim_suffix>", middle="<fim_middle>",
    file_separator="<file_sep>", repo_name="<repo_name>",
)  # fmt: skip


def test_prompts_of_each_family() -> None:
    assert fim.render(QWEN, "a", "b") == "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>"
    assert fim.render(DEEPSEEK, "a", "b") == "<｜fim▁begin｜>a<｜fim▁hole｜>b<｜fim▁end｜>"
    assert fim.render(CODELLAMA_SPM, "a", "b") == "▁<SUF>b▁<PRE>a▁<MID>"
    files = [("x.py", "x = 1"), ("y.py", "y = 2\n")]
    assert fim.render(QWEN, "a", "b", path="z.py", repo="r", extra=files) == (
        "<|repo_name|>r\n<|file_sep|>x.py\nx = 1\n<|file_sep|>y.py\ny = 2\n"
        "<|file_sep|>z.py\n<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>"
    )
    assert fim.render(STARCODER, "", "b", extra=[("x", "")]) == (
        "<file_sep>x\n\n<fim_prefix><fim_suffix>b<fim_middle>"
    )
    # No marker for other files: they are left out, and so is a path without other files.
    assert fim.render(DEEPSEEK, "a", "", path="z", extra=files) == fim.render(DEEPSEEK, "a", "")
    assert fim.render(QWEN, "a", "b", path="z.py", repo="r") == fim.render(QWEN, "a", "b")


def test_only_markers_are_marked() -> None:
    evil = "<|fim_middle|>"
    parts = fim.pieces(QWEN, evil, evil, "p", "r", [("f", evil)])
    assert [text for text, marker in parts if marker] == [
        "<|repo_name|>", "<|file_sep|>", "<|file_sep|>",
        "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>",
    ]  # fmt: skip
    assert "".join(text for text, _ in parts) == fim.render(
        QWEN, evil, evil, path="p", repo="r", extra=[("f", evil)]
    )
    assert fim.pieces(QWEN, "", "") == [(m, True) for m in (QWEN.prefix, QWEN.suffix, QWEN.middle)]


MODEL = tokenizer()


def test_a_marker_that_a_file_spells_is_text() -> None:
    tiny = FimSpec(prefix="<|mark|>", suffix="<|fill|>", middle="<|end|>")
    ids = fim.encode(tiny, MODEL, "a<|end|>", "<|fill|>b")
    assert ids == (MARK, *b"a<|end|>", FILL, *b"<|fill|>b", END)


TINY = FimSpec(prefix="<|mark|>", suffix="<|fill|>", middle="<|end|>")


@pytest.mark.parametrize(
    ("text", "kept", "word"),
    [
        ("    retu", "   ", " retu"),
        ("print(val", "print", "(val"),
        ("total_cou", "total", "_cou"),
        ("x = ", "x =", " "),
        ("    ", "", "    "),
        ("x = [", "x =", " ["),
        ("a\r\n\tif", "a\r\n", "\tif"),
        ("a__", "a", "__"),
        ("a\n", "a\n", ""),
        ("", "", ""),
        ("x" * 40, "x" * 16, "x" * 24),
    ],
)
def test_the_word_at_the_cursor(text: str, kept: str, word: str) -> None:
    assert fim.split_word(text) == (kept, word)


@given(st.text())
def test_of_any_text_the_last_word_is_of_its_last_line(text: str) -> None:
    kept, word = fim.split_word(text)
    assert kept + word == text and "\n" not in word and len(word) <= 64


def test_lines_before_the_cursor_stand_behind_the_marker() -> None:
    lines = [f"line {number}\n" for number in range(35)]
    ids, begun = fim.at_cursor(TINY, MODEL, "".join(lines) + "    ret", "\nrest\n")
    kept, ahead = "".join(lines[:32]), "".join(lines[32:])
    assert ids == (MARK, *kept.encode(), FILL, *b"\nrest\n", END, *ahead.encode(), *b"   ")
    assert begun == tuple(b" ret")


def test_typing_adds_to_the_end_of_the_prompt_alone() -> None:
    text = "a\n" * 9
    typed = [
        f"{text}def f():\n{line}" for line in ("", "  r", "  retu", "  return x", "  return x\n  s")
    ]
    asked = [fim.at_cursor(TINY, MODEL, text, "\nf()\n")[0] for text in typed]
    for one, other in itertools.pairwise(asked):
        assert other[: len(one)] == one


def test_without_text_after_the_cursor_or_with_it_in_front_nothing_is_moved() -> None:
    text = "a\nb"
    for blank in ("", "\n\n"):
        plain = fim.encode(TINY, MODEL, text, blank)
        assert fim.at_cursor(TINY, MODEL, text, blank) == (plain, ())
    front = TINY.model_copy(update={"order": "spm"})
    plain = fim.encode(front, MODEL, text, "c")
    assert fim.at_cursor(front, MODEL, text, "c") == (plain, ())


def test_a_prompt_that_stops_inside_a_word() -> None:
    assert fim.encode_begun(MODEL, "def f(val") == (tuple(b"def f"), tuple(b"(val"))
    assert fim.encode_begun(MODEL, "a\n") == (tuple(b"a\n"), ())
    assert fim.encode_begun(MODEL, "val") == (tuple(b"val"), ())  # nothing would be left
    assert fim.encode_begun(MODEL, "a<|end|>") == ((*b"a", END), ())  # a token, not a word
    assert fim.encode_begun(MODEL, "a<|end|>b") == ((*b"a", END, *b"b"), ())
    twice = (END, *b"a", END)  # cut in two all the same where there is another one
    assert fim.encode_begun(MODEL, "<|end|>a<|end|>") == (twice, ())
    assert fim.encode_begun(MODEL, "a<|end|> b") == ((*b"a", END), tuple(b" b"))


def test_an_editors_own_prompt_is_taken_apart() -> None:
    def sides(prompt: str, spec: FimSpec = TINY) -> tuple[str, str] | None:
        return fim.sides(spec, MODEL, prompt)

    assert sides("<|mark|>a\nb<|fill|>c<|end|>") == ("a\nb", "c")
    assert sides("<|mark|><|fill|><|end|>") == ("", "")
    for other in ("a<|fill|>b", "<|mark|>a<|end|>", "<|mark|>a<|fill|>b<|end|> x", "", "<|mark|>"):
        assert sides(other) is None
    assert sides("<|mark|>a<|fill|>b<|fill|>c<|end|>") is None  # which of the two?
    assert sides("<|mark|>a<|fill|>b<|end|>c<|end|>") is None
    assert sides("<|mark|>a<|fill|>b<|end|>", TINY.model_copy(update={"order": "spm"})) is None


def decoded(ids: list[int], **options: bool) -> list[str]:
    decoder = StreamDecoder(MODEL, **options)
    return [*map(decoder.push, ids), decoder.flush()]


def test_an_emoji_byte_by_byte() -> None:
    assert decoded(list("a🚀é".encode())) == ["a", "", "", "", "🚀", "", "é", ""]


def test_bytes_that_are_no_text() -> None:
    assert "".join(decoded([0xFF, 0x61])) == "\ufffda"
    # A character that is broken off is told at once when another begins, else at the end.
    assert decoded([0xF0, 0x9F, 0x61]) == ["", "", "\ufffda", ""]
    assert decoded([0xF0, 0x9F, 0x9A]) == ["", "", "", "\ufffd"]
    decoder = StreamDecoder(MODEL)
    decoder.push(0xF0)
    assert decoder.flush() == "\ufffd" and decoder.push(0x61) == "a" and decoder.flush() == ""


def test_special_tokens_in_a_stream() -> None:
    ids = [0x61, MARK, 0x62, FILL, END]
    assert "".join(decoded(ids)) == "ab"
    assert "".join(decoded(ids, skip_special=False)) == "a<|mark|>b<|fill|><|end|>"
    assert "".join(decoded([0x61, 5000, 0x62])) == "ab"  # an id that has no token


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=40), st.text(max_size=20).map(str.encode)))
def test_any_bytes(raw: bytes) -> None:
    pieces = decoded(list(raw))
    assert "".join(pieces) == raw.decode(errors="replace")
    for end in range(len(raw)):  # what was shown is never taken back
        assert raw.decode(errors="replace").startswith("".join(pieces[:end]))


def run(stops: list[str], pieces: list[str]) -> tuple[str, str | None]:
    """(all that was shown, the stop string)."""
    matcher, shown = StopMatcher(stops), ""
    for piece in pieces:
        text, stop = matcher.push(piece)
        shown += text
        if stop is not None:
            assert matcher.push("more") == ("", None) and matcher.flush() == ""
            return shown, stop
    return shown + matcher.flush(), None


@pytest.mark.parametrize(
    ("stops", "pieces", "want"),
    [
        ([], ["a", "b"], ("ab", None)),
        ([""], ["a"], ("a", None)),
        (["\n\n"], ["a\n", "\nb"], ("a", "\n\n")),
        (["\n\n"], ["a\n", "b\n"], ("a\nb\n", None)),
        (["</s>"], ["x<", "/", "s", ">y"], ("x", "</s>")),
        (["</s>"], ["x</", "t>"], ("x</t>", None)),
        (["aab"], ["aa", "ab"], ("a", "aab")),  # the start of the match moves on
        (["abab", "b"], ["a", "b"], ("a", "b")),
        (["bc", "abc"], ["xabc"], ("x", "abc")),  # one end: the longest
        (["abcd", "bc"], ["xabcd"], ("xa", "bc")),  # the first to be complete
        (["abcd", "bc"], ["xab", "c", "d"], ("xa", "bc")),
        (["🚀🚀"], ["🚀", "🚀"], ("", "🚀🚀")),
        (["a"], ["a"], ("", "a")),
    ],
)
def test_stop_strings(stops: list[str], pieces: list[str], want: tuple[str, str | None]) -> None:
    assert run(stops, pieces) == want


def slow(stops: list[str], text: str) -> tuple[str, str | None]:
    """The same, a character at a time over the whole text."""
    for end in range(1, len(text) + 1):
        met = [stop for stop in stops if stop and text[:end].endswith(stop)]
        if met:
            stop = max(met, key=len)
            return text[: end - len(stop)], stop
    return text, None


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.text("ab\n", max_size=4), max_size=3),
    st.lists(st.text("ab\n", max_size=4), max_size=8),
)
def test_pieces_do_not_matter(stops: list[str], pieces: list[str]) -> None:
    assert run(stops, pieces) == slow(stops, "".join(pieces))


def test_nothing_is_held_longer_than_needed() -> None:
    matcher = StopMatcher(["<end>"])
    assert matcher.push("hello <e") == ("hello ", None)
    assert matcher.push("x") == ("<ex", None)
    assert matcher.push("plain text") == ("plain text", None)
