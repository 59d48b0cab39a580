from __future__ import annotations

import pytest

from subllm.measuring.report.masks.records import Comparison
from subllm.measuring.report.masks.tables import (
    bytes_table,
    distance_table,
    layers_table,
    letter,
    models_table,
    tidy_table,
)

from .samples import counts, five, model, two


def test_what_is_compared() -> None:
    assert models_table(two()).plain() == (
        "tiny:1m: 1,536 weights in 4 matrices\n"
        "   MODEL   PATTERN    METHOD  CALIBRATION   KEPT  OWN MB  + MB\n"
        "A  python  8:16 int8  wanda   pack:python  47.1%     3.0   2.0\n"
        "B  java    8:16 int8  wanda   pack:java    47.1%     3.0   2.0\n"
        "+ embedding, head and norms (one); 8.0 MB on disk together\n"
    )
    # Five own parts, and two of the other kind.
    assert "(2 different); 18.0 MB on disk together" in models_table(five()).plain()


def test_distances_by_type() -> None:
    assert distance_table(two()).plain() == (
        "Jaccard distance of kept weights: 0 the same, 1 nothing in common\n"
        "PAIR             ALL      Q      K\n"
        "python / java  0.485  0.571  0.250\n"
        "independent masks as dense as these: 0.677\n"
    )


def test_means_within_across_and_with_general() -> None:
    lines = distance_table(five()).plain().splitlines()
    assert lines[2].split() == ["python", "/", "python-small", "0.000", "0.000"]
    assert lines[-4].split() == ["mean", "within", "a", "language", "0.000", "0.000"]
    assert lines[-3].split() == ["mean", "across", "languages", "0.667", "0.667"]
    assert lines[-2].split() == ["mean", "with", "general", "0.489", "0.489"]
    assert lines[-1] == "independent masks as dense as these: 0.667"


def test_means_of_mixed_patterns_say_which_pairs_they_take() -> None:
    given = five()
    models = (*given.models[:3], given.models[3].model_copy(update={"pattern": "2:4"}))
    header = given.header.model_copy(update={"models": (*models, given.models[4])})
    lines = distance_table(Comparison(header, given.matrices)).plain().splitlines()
    assert lines[-1] == "means are of pairs with one pattern and method"
    assert lines[-3].startswith("mean across languages")
    assert not any(line.startswith("mean with general") for line in lines)


def test_a_pair_layer_by_layer() -> None:
    comparison = two()
    assert layers_table(comparison, comparison.pairs[0]).plain() == (
        "python and java by layer, Jaccard distance\n"
        "LAYER    ALL      Q      K\n"
        "    0  0.379  0.500  0.000\n"
        "    1  0.617  0.667  0.500\n"
    )


def test_shared_and_unique_bytes() -> None:
    table = bytes_table(five())
    titles = [column.title for column in table.columns]
    assert titles[1:] == ["KEPT MB", "SHARED MB", "BY ALL MB", "UNIQUE MB", "UNIQUE", "IN GENERAL"]
    million = [cell * 1e6 for cell in table.rows[0][1:5] if isinstance(cell, float)]
    assert million == pytest.approx([256, 256, 100, 0])
    assert list(table.rows[0][5:]) == [0, 0.75]
    million = [cell * 1e6 for cell in table.rows[1][1:5] if isinstance(cell, float)]
    assert million == pytest.approx([128, 128, 50, 0])  # int4
    assert list(table.rows[4][5:]) == [80 / 512, 0.5]
    assert list(table.rows[3])[-1] is None  # general in itself
    assert len(bytes_table(two()).columns) == 6  # no general one there


def test_every_pair_in_every_matrix() -> None:
    lines = tidy_table(two()).csv().splitlines()
    assert lines[0] == ("layer,type,tensor,a,b,kind,weights,kept_a,kept_b,kept_by_both,distance")
    assert lines[1] == (
        "0,q,model.layers.0.q.weight,tiny:1m-python,tiny:1m-java,across,512,300,300,200,0.5"
    )
    assert len(lines) == 5
    assert len(tidy_table(five()).rows) == 10


def wide(labels: list[str], roles: str = "q k v o gate up down") -> Comparison:
    """Long names, all types and large figures."""
    k = len(labels)
    both = [[500_000_000] * k for _ in range(k)]
    header = two().header.model_copy(
        update={
            "models": tuple(
                model(each, own_bytes=4 * 10**9, calibration="mix:pack:python=0.5,x=0.5")
                for each in labels
            )
        }
    )
    rows = [
        counts(0, role, both, [0] * k, 500_000_000, 500_000_000, (10_000, 100_000))
        for role in roles.split()
    ]
    return Comparison(header, rows)


def test_tables_fit_80_columns() -> None:
    names = ["javascript-some_longer_tag", "javascript-another_longer_tag", "general-int4"]
    comparison = wide(names)
    tables = [models_table(comparison), distance_table(comparison), bytes_table(comparison)]
    for table in [*tables, layers_table(comparison, comparison.pairs[0])]:
        lines = table.plain().splitlines()
        assert max(map(len, lines)) <= 80, table.plain()
    note = bytes_table(comparison).note.splitlines()[1]
    assert note == "10,500.0 M kept weights lie at 3,500.0 M places; 3,500.0 M places are in all"
    assert "A / B" in distance_table(comparison).plain()
    assert "javascript-s" in models_table(comparison).plain()
    short = wide(["javascript", "python"])
    assert "javascript / python" in distance_table(short).plain()


def test_letters_go_on_after_z() -> None:
    assert [letter(n) for n in (0, 25, 26, 53)] == ["A", "Z", "A1", "B2"]
