from __future__ import annotations

import pytest

from subllm.making.textmaking import filters
from subllm.making.textmaking.known import KnownText
from subllm.making.textmaking.privacy import private

FUNCTION = """def mean(values: list[float]) -> float:
    if not values:
        raise ValueError("no values")
    total = 0.0
    for value in values:
        total += value
    return total / len(values)
"""
PROSE = (
    "A hash table keeps its entries in an array of buckets. The key of an entry is turned into "
    "a number, and the number says which bucket is used. When two keys fall into the same bucket "
    "there is a collision, and the table has to decide what to do with it. Some tables keep a "
    "short list in each bucket, others look for the next free place in the array. Both ways work "
    "well as long as the table is not too full.\n"
)


@pytest.mark.parametrize("tag", ["python", "py", "", "Python "])
def test_the_only_block_is_the_code(tag: str) -> None:
    assert filters.code_block(f"Here:\n```{tag}\nx = 1\n\n```\nDone.", "python") == (
        "x = 1\n",
        None,
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = 1", "no code block"),
        ("```python\nx = 1\n", "no code block"),
        ("```python\nx\n```\n```python\ny\n```", "several code blocks"),
        ("```python\nx\n```python", "several code blocks"),
        ("```java\nint x;\n```", "another language"),
    ],
)
def test_other_answers_have_no_single_block(text: str, reason: str) -> None:
    assert filters.code_block(text, "python") == ("", reason)


def test_hollow_code_is_short_or_a_placeholder() -> None:
    assert filters.hollow_code(FUNCTION) is None
    assert filters.hollow_code("x = 1\n\n\n\n\n\n\n") == "too short"
    for comment in (
        "# TODO: finish",
        "# Your code here",
        "# Implement the logic",
        "x = 1  # a placeholder",
    ):
        assert filters.hollow_code(f"{FUNCTION}{comment}\n") == "placeholder"
    assert filters.hollow_code(f"{FUNCTION}stream.mapToDouble(x)\n") is None


def test_prose_must_be_english_complete_and_an_answer() -> None:
    assert filters.poor_prose(PROSE) is None
    assert filters.poor_prose(PROSE[:80]) == "too short"
    assert filters.poor_prose(PROSE + "For example:\n") == "truncated"
    assert filters.poor_prose(PROSE + "```python\nx = 1\n") == "truncated"
    assert filters.poor_prose("As an AI language model, I like this. " + PROSE) == "refusal"
    assert filters.poor_prose("I can't wait to see you. " + PROSE) is None
    assert filters.poor_prose("Der Hund rennt schnell über Wiesen. " * 20) == "not English"


def test_letters_outside_ascii_are_foreign_but_a_name_or_two() -> None:
    assert filters.foreign_letters("A café — “really” → 3 × 4 °C") is None
    assert filters.foreign_letters(FUNCTION + "# 计算平均值并返回结果\n") == "not English"


def test_repetition_of_lines_or_of_anything() -> None:
    assert filters.repetitive(FUNCTION) is None
    assert filters.repetitive(PROSE) is None
    assert filters.repetitive("print('a line of it')\n" * 6 + FUNCTION) == "repetitive"
    assert filters.repetitive("and so on and so forth " * 40) == "repetitive"
    assert filters.repetitive("}\n" * 20) is None
    pairs = "".join(f"first of value {i}\nfirst of value {i}\n" for i in range(5))
    assert filters.repetitive(pairs) == "repetitive"


def test_near_duplicates_share_most_of_their_five_grams() -> None:
    seen = filters.Seen()
    assert seen.near_duplicate(FUNCTION) is None
    seen.add(FUNCTION)
    renamed = FUNCTION.replace("mean", "average")
    assert seen.near_duplicate(renamed) == "near duplicate"
    assert seen.near_duplicate(PROSE) is None
    # 3 shared of 3 + 4 - 3 grams is more than half, 3 of 3 + 8 - 3 is less.
    seen.add("a b c d e f g")
    assert seen.near_duplicate("a b c d e f g h") == "near duplicate"
    assert seen.near_duplicate("a b c d e f g h i j k l") is None


def test_benchmark_overlap_needs_ten_words_in_a_row() -> None:
    benchmark = KnownText(["one two three four five six seven eight nine ten eleven"])
    assert benchmark.overlaps("so: Two three, four five six seven eight nine ten (eleven)!")
    assert benchmark.overlaps("three four five six seven eight nine ten eleven") is None


def test_imports_and_numbers_are_no_benchmark_text() -> None:
    includes = "#include <a>\n" * 3 + "#include<vector>\n#include <map>\n#include <set>\n"
    numbers = "assert f([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]) == 3"
    benchmark = KnownText([includes, numbers])
    assert benchmark.overlaps(includes) is None
    assert benchmark.overlaps("values = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]") is None


@pytest.mark.parametrize(
    "text",
    [
        "Alice lends a book to Bob; John Doe pays.",
        "see https://api.example.com/v1 or http://localhost:8080/x",
        "mail to alice@example.org",
        "fetch(`https://${host}/items`)",
        "Robert's Rules are not meant",
        "token = 'abc123'",
    ],
)
def test_placeholders_are_not_private(text: str) -> None:
    assert private(text) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("visit https://www.acme-shop.com/a", "address on the web"),
        ("visit www.acme-shop.com", "address on the web"),
        ("https://example.com.evil.net", "address on the web"),
        ("mail to a.b@gmail.com", "e-mail address"),
        ("key = 'sk-abcdefghijklmnop1234'", "key"),
        ("-----BEGIN RSA PRIVATE KEY-----", "key"),
        ("d41d8cd98f00b204e9800998ecf8427e", "key"),
        ("by Harper Lee", "person"),
        ("by F. Scott Fitzgerald", "person"),
        ("by J.K. Author", "person"),
        ("as Gutenberg did", "person"),
        ("Vincent van Gogh painted", "person"),
    ],
)
def test_private_data_is_found(text: str, reason: str) -> None:
    assert private(text) == reason
