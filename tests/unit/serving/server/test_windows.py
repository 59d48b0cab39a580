"""Text before a cursor, from a window that moves."""

from __future__ import annotations

from itertools import pairwise

from subllm.serving.server.windows import LONGEST, SESSIONS, TEXTS, Windows

LINES = [
    f"    value_{number} = compute({number}, {number * 7919 % 1000})\n" for number in range(600)
]


def window(first: int, count: int = 64) -> str:
    return "".join(LINES[first : first + count])


def test_a_window_that_goes_down_begins_where_it_did_for_a_while() -> None:
    windows = Windows()
    starts = []
    for first in range(60):
        text = windows.steady("a", window(first))
        assert text.endswith(window(first)) and len(text) <= 1.26 * len(window(first))
        starts.append(text[:40])
    changes = [one != other for one, other in pairwise(starts)]
    assert 2 <= sum(changes) <= 4  # where a quarter more would be exceeded


def test_a_window_that_goes_up_loses_a_little() -> None:
    windows = Windows()
    windows.steady("a", window(40))
    assert windows.steady("a", window(36)) == window(40, 60)
    assert windows.steady("a", window(10)) == window(10)


def test_characters_too() -> None:
    windows, text = Windows(), window(0, 200)
    first = windows.steady("a", text[1000:5000])
    for more in range(1, 60):
        assert (
            windows.steady("a", text[1000 + more : 5000 + more]) == first + text[5000 : 5000 + more]
        )


def test_what_was_written_in_between_is_as_it_is_now() -> None:
    windows = Windows()
    windows.steady("a", window(0))
    changed = window(1, 50) + "    changed = True\n" + window(51, 14)
    assert windows.steady("a", changed) == LINES[0] + changed


def test_the_begin_of_a_file_stays_the_begin() -> None:
    windows = Windows()
    for count in range(20, 60):
        assert windows.steady("a", window(0, count)) == window(0, count)
    assert windows.steady("a", window(0, 20)) == window(0, 20)


def test_of_repeated_lines_the_right_one() -> None:
    head = "".join(LINES[:12])
    text = head + window(100, 30) + head + window(200, 60)
    windows = Windows()
    windows.steady("a", text)
    cut = text.index(head, 1)
    assert windows.steady("a", text[cut:] + "x") == text[cut:] + "x"  # too far from its begin
    later = text[len(LINES[0]) :] + "x"
    windows.steady("b", text)
    assert windows.steady("b", later) == text + "x"


def test_other_texts_and_other_sessions_have_nothing_to_do_with_it() -> None:
    windows = Windows()
    windows.steady("a", window(0))
    assert windows.steady("b", window(1)) == window(1)
    assert windows.steady(None, window(1)) == window(1)
    other = window(1, 9) + "".join(line.upper() for line in LINES[10:64])
    assert windows.steady("a", other) == other
    assert windows.steady("a", "short") == "short"


def test_some_files_in_turn_and_no_more_memory_than_that() -> None:
    windows = Windows()
    files = [window(first) for first in range(0, 64 * (TEXTS + 1), 64)]
    for text in files:
        windows.steady("a", text)
    moved = [text[text.index("\n") + 1 :] + "x = 1\n" for text in files]
    assert [windows.steady("a", text) != text for text in reversed(moved)] == [True] * TEXTS + [
        False
    ]
    for number in range(SESSIONS + 1):
        windows.steady(f"s{number}", window(0))
    assert windows.steady("s0", window(1)) == window(1)
    large = "x = 1\n" * LONGEST
    assert windows.steady("s1", large) == large
