from __future__ import annotations

import numpy as np
import pytest
import torch

from subllm.making.recovery.answers import Answers, Asked
from subllm.making.recovery.loss import TopK
from subllm.making.recovery.rows import pack_rows

LENGTH = 20


@pytest.fixture
def text():
    return pack_rows([[7] * (LENGTH - 1) + [2]] * 3, LENGTH, end=2)


def answer(vocabulary: int, k: int, seed: int = 0) -> TopK:
    """Of a row of `text`: one position, the end, is not learned."""
    generator = torch.Generator().manual_seed(seed)
    p = torch.softmax(4 * torch.randn(LENGTH - 1, vocabulary, generator=generator), -1)
    best = p.topk(k, 1)
    return TopK(best.indices, best.values, (1 - best.values.sum(1)).clamp_min(0))


@pytest.mark.parametrize(
    ("vocabulary", "k"), [(300, 32), (151_936, 32), (262_144, 7), (300_000, 5)]
)
def test_ids_come_back_and_chances_nearly(tmp_path, text, vocabulary, k) -> None:
    answers = Answers(tmp_path, text, Asked(base="sha256-b", vocabulary=vocabulary, k=k))
    given = answer(vocabulary, k)
    answers.put(1, given)
    found = answers.get(1)
    assert torch.equal(found.ids, given.ids)
    assert float((found.chances - given.chances).abs().max()) < 0.008
    assert float((found.rest - given.rest).abs().max()) < 5e-4
    torch.testing.assert_close(found.chances.sum(1) + found.rest, torch.ones(LENGTH - 1))


def test_a_token_takes_about_a_hundred_bytes(tmp_path, text) -> None:
    answers = Answers(tmp_path, text, Asked(base="sha256-b", vocabulary=151_936, k=32))
    assert answers.token_bytes == 106
    assert answers.path.stat().st_size == 4096 + 3 * (4 + LENGTH * 106)


def test_what_is_there_stays_and_what_is_not_is_known(tmp_path, text) -> None:
    def opened() -> Answers:
        return Answers(tmp_path, text, Asked(base="sha256-b", vocabulary=300, k=8))

    opened().put(2, answer(300, 8))
    answers = opened()
    assert [answers.has(row) for row in range(3)] == [False, False, True]
    assert answers.get(0) is None
    assert torch.equal(answers.get(2).ids, answer(300, 8).ids)


def test_damage_makes_a_row_missing_and_only_that(tmp_path, text) -> None:
    answers = Answers(tmp_path, text, Asked(base="sha256-b", vocabulary=300, k=8))
    for row in range(3):
        answers.put(row, answer(300, 8, row))
    slot = (answers.path.stat().st_size - 4096) // 3
    with answers.path.open("r+b") as file:
        file.seek(4096 + slot + 40)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    again = Answers(tmp_path, text, Asked(base="sha256-b", vocabulary=300, k=8))
    assert [again.has(row) for row in range(3)] == [True, False, True]


def test_a_file_cut_short_is_filled_again(tmp_path, text) -> None:
    answers = Answers(tmp_path, text, Asked(base="sha256-b", vocabulary=300, k=8))
    for row in range(3):
        answers.put(row, answer(300, 8, row))
    with answers.path.open("r+b") as file:
        file.truncate(answers.path.stat().st_size - answers.token_bytes - 5)
    again = Answers(tmp_path, text, Asked(base="sha256-b", vocabulary=300, k=8))
    assert [again.has(row) for row in range(3)] == [True, True, False]


def test_other_bases_texts_and_temperatures_have_files_of_their_own(tmp_path, text) -> None:
    other = pack_rows([[8] * LENGTH] * 3, LENGTH)
    common = {"vocabulary": 300, "k": 8}
    paths = {
        Answers(tmp_path, text, Asked(base="sha256-b", **common)).path,
        Answers(tmp_path, text, Asked(base="sha256-c", **common)).path,
        Answers(tmp_path, other, Asked(base="sha256-b", **common)).path,
        Answers(tmp_path, text, Asked(base="sha256-b", temperature=2.0, **common)).path,
        Answers(tmp_path, text, Asked(base="sha256-b", compute="float32", **common)).path,
    }
    assert len(paths) == 5
    assert np.all([path.exists() for path in paths])


def test_states_come_back_nearly_where_they_are_kept(tmp_path, text) -> None:
    answers = Answers(tmp_path, text, Asked(base="sha256-b", vocabulary=300, k=8, hidden=24))
    plain = Answers(tmp_path, text, Asked(base="sha256-b", vocabulary=300, k=8))
    assert answers.path != plain.path
    assert answers.token_bytes == plain.token_bytes + 2 + 24
    states = torch.randn(LENGTH - 1, 24, generator=torch.Generator().manual_seed(0))
    states[3] = 0
    given = answer(300, 8)
    answers.put(2, given, states)
    assert torch.equal(answers.get(2).ids, given.ids)
    again = Answers(tmp_path, text, Asked(base="sha256-b", vocabulary=300, k=8, hidden=24))
    assert again.has(2) and not again.has(1)
    found = again.states(2)
    assert float((found - states).norm() / states.norm()) < 0.01
    assert not found[3].any()
