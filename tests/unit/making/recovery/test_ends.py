"""What is taught at the end of a hole."""

from __future__ import annotations

import numpy as np
import torch

from subllm.making.recovery.ends import EndsOfHoles, certain, ends_of_holes, knowing_ends
from subllm.making.recovery.loss import TopK
from subllm.making.recovery.rows import RecoveryText, pack_rows, with_filled
from subllm.progress import NullProgress

END, MARK = 0, 9
ROWS = [
    [1, 2, MARK, 3, 4, END, 5, 6],  # a hole of 3 4
    [MARK, 3, MARK, 5, END, MARK, 6, 7],  # of 3 MARK 5; the last is not over here
]


def text() -> RecoveryText:
    tokens = np.array(ROWS, np.int32)
    starts = np.zeros(tokens.shape, np.bool_)
    starts[:, 0] = True
    starts[:, 1:] = tokens[:, :-1] == END
    return with_filled(RecoveryText(tokens, starts, tokens != END), (MARK,))


def test_ends_are_where_the_closing_token_follows_in_the_row() -> None:
    expected = np.zeros((2, 8), bool)
    expected[0, 4] = expected[1, 3] = True
    assert np.array_equal(ends_of_holes(text()), expected)


def test_where_holes_are_is_not_known() -> None:
    unknown = pack_rows([ROWS[0]], 8, end=END)
    assert not ends_of_holes(unknown).any()

    class Teacher:
        pass

    teacher = Teacher()
    assert knowing_ends(teacher, unknown) is teacher  # type: ignore[arg-type,comparison-overlap]


def test_certainty_by_hand() -> None:
    target = TopK(
        torch.tensor([[4, 7, 5], [4, 7, 5], [4, 7, 5]]),
        torch.tensor([[0.5, 0.25, 0.125]] * 3),
        torch.tensor([0.125] * 3),
    )
    found = certain(target, torch.tensor([0, 2]), torch.tensor([7, 6]))
    assert found.ids.tolist() == [[7, 4, 5], [4, 7, 5], [6, 7, 5]]
    assert found.chances.tolist() == [[1, 0, 0], [0.5, 0.25, 0.125], [1, 0, 0]]
    assert found.rest.tolist() == [0, 0.125, 0]
    assert target.chances[0, 0] == 0.5  # as it was


def test_all_else_is_as_the_teacher_says() -> None:
    given = text()

    class Teacher:
        def prepare(self, rows, progress, stopped=None) -> None:
            self.prepared = list(rows)

        def target(self, rows) -> TopK:
            count = int(given.learned[rows].sum())
            ids = torch.arange(count)[:, None] + torch.tensor([[100, 200]])
            return TopK(ids, torch.tensor([[0.5, 0.25]] * count), torch.tensor([0.25] * count))

        def states(self, rows, target):
            return "states"

    inner = Teacher()
    teacher = EndsOfHoles(inner, given)  # type: ignore[arg-type]
    teacher.prepare([1], NullProgress())
    assert inner.prepared == [1] and teacher.states([1], inner.target([1])) == "states"
    for rows in ([0], [1], [1, 0]):
        before, after = inner.target(rows), teacher.target(rows)
        ends = torch.from_numpy(ends_of_holes(given)[rows][given.learned[rows]])
        assert ends.sum() == len(rows)
        assert torch.equal(after.ids[~ends], before.ids[~ends])
        assert torch.equal(after.chances[~ends], before.chances[~ends])
        assert (after.ids[ends, 0] == END).all() and (after.chances[ends, 0] == 1).all()
        assert (after.rest[ends] == 0).all()
