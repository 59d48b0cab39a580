"""What the router is measured and trained on: cut from files, told from them alone."""

from __future__ import annotations

import pytest
from benchmarks.routed.cases import QUESTIONS, rows
from detector import corpus, make
from detector.corpus import File

from subllm.languages import LANGUAGES
from subllm.serving.routing.model import read, write

LINES = {
    "python": "def f{i}(x):\n    return self.x is not None\n",
    "java": "public final class F{i} {{\n    private String x;\n}}\n",
    "cpp": "#include <f{i}.h>\nstd::vector<int> f{i};\n",
    "javascript": "const f{i} = (x) => x === undefined;\n",
    "ruby": "def f{i}?\n  puts @x\nend\n",
}


def made(packages: int = 5) -> list[File]:
    return [
        File(
            f"{package}/{n}.{language}",
            language,
            "".join(line.format(i=n * i % 7) for i in range(15)),
        )
        for language, line in LINES.items()
        for package in range(packages)
        for n in range(12)
    ]


def test_rows_are_the_same_each_time_and_of_every_kind() -> None:
    found = rows(iter(made()), "tune", 6)
    assert found == rows(iter(made()), "tune", 6)
    for kind in ("file", "fim", "fragment", "chat"):
        of_kind = [row for row in found if row.kind == kind]
        assert len(of_kind) == 6 * (len(LANGUAGES) + 1)
        assert {row.written for row in of_kind} == set(LINES)
    for row in found:
        target = row.name.startswith("target")
        assert target or row.expected == (row.written if row.written in LANGUAGES else None)
        assert row.query.path is row.query.language is None


def test_tune_and_test_share_nothing() -> None:
    parts = corpus.yaml.safe_load(corpus.PROJECTS.read_text())
    names = [
        {(registry, name) for registry, found in part.items() for name in found}
        for part in parts.values()
    ]
    assert sum(map(len, names)) == len(set().union(*names))
    questions = corpus.yaml.safe_load(QUESTIONS.read_text())
    tune, test = ({q for kind in part.values() for q in kind} for part in questions.values())
    assert not tune & test - set(LANGUAGES)


def test_what_is_trained_tells_languages_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make, "files", lambda part: iter(made()))
    samples = make.cut(make.chosen())
    known = make.words(samples)
    assert {"def", "public", "include"} <= known
    assert "f3" not in known or len(known) < 200
    names, matrix, labels, languages = make.select(samples, known, 400)
    model = make.LogisticRegression(C=30.0).fit(matrix, labels)
    ranges = [
        (name, bytes((model.coef_[:, i] * 10 + 128).clip(0, 255).astype("uint8").tolist()))
        for i, name in enumerate(names)
    ]
    found = read(write(languages, model.intercept_.tolist(), 0.1, ranges, {}))
    for language, line in LINES.items():
        shares = found.probabilities(line.format(i=1) * 3)
        assert max(shares, key=lambda name: shares[name]) == language
