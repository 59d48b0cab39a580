"""Which model drafts for which, and for whom never."""

from __future__ import annotations

import pytest

from subllm.routing.drafts import Draft, drafts_for, unfit
from subllm.routing.router import Query, Router, SubModel
from subllm.routing.sessions import Sessions

CODE = "def f(x):\n    return x is not None\n"


def sub(size: str, language: str, tag: str = "", family: str = "qwen") -> SubModel:
    """As if weights were bytes; a sub-model keeps half of them."""
    parameters = {"0.5b": 500, "1.5b": 1500, "7b": 7000}[size]
    base = f"{family}:{size}"
    name = f"{base}-{language}" + (f"-{tag}" if tag else "")
    share = 1.0 if language == "dense" else 0.4 if tag == "small" else 0.5
    return SubModel(name, base, language, tag, parameters, int(share * parameters))


DENSE = sub("1.5b", "dense")
STORE = [
    DENSE,
    sub("1.5b", "python"),
    sub("0.5b", "java"),
    sub("0.5b", "general"),
    sub("0.5b", "dense"),
    sub("0.5b", "python"),
    sub("7b", "dense"),
    sub("7b", "python"),
    sub("0.5b", "python", family="other"),
    sub("0.5b", "dense", family="other"),
]


def names(
    target: SubModel, language: str | None, models: list[SubModel] = STORE
) -> list[tuple[str, str]]:
    return [(draft.model, draft.reason) for draft in drafts_for(target, language, models)]


def test_the_language_then_dense_then_general() -> None:
    rest = [("qwen:0.5b-dense", "dense"), ("qwen:0.5b-general", "general")]
    assert names(DENSE, "python") == [("qwen:0.5b-python", "language"), *rest]
    assert names(DENSE, "rust") == rest  # never the sub-model of another language
    assert names(DENSE, None) == rest
    assert names(DENSE, "dense") == names(DENSE, "general") == rest
    assert names(DENSE, "java", [DENSE, sub("0.5b", "java")]) == [("qwen:0.5b-java", "language")]


def test_only_what_is_smaller_drafts() -> None:
    assert names(sub("0.5b", "dense"), "python") == []  # its own sub-model is not faster enough
    big = [name for name, _ in names(sub("7b", "dense"), "python")]
    assert big[:2] == ["qwen:0.5b-python", "qwen:1.5b-python"]  # the one that is read fastest
    assert "qwen:7b-python" not in big
    heavy = SubModel("qwen:0.5b-python", "qwen:0.5b", "python", "", 500, 1500)  # bf16, say
    assert drafts_for(DENSE, "python", [DENSE, heavy]) == []


def test_only_dense_models_are_drafted_for() -> None:
    assert names(sub("1.5b", "python"), "python") == []


def test_of_several_the_smallest() -> None:
    models = [sub("0.5b", "python", "b"), sub("0.5b", "python"), sub("0.5b", "python", "small")]
    found = [draft.model.rpartition(":")[2] for draft in drafts_for(DENSE, "python", models)]
    assert found == ["0.5b-python-small", "0.5b-python", "0.5b-python-b"]


@pytest.mark.parametrize(
    ("draft", "reason"),
    [
        (sub("0.5b", "python"), None),
        (sub("0.5b", "java"), None),  # whoever names it knows why
        (sub("1.5b", "python"), None),
        (DENSE, "not smaller than qwen:1.5b-dense"),
        (sub("7b", "python"), "not smaller"),
        (sub("0.5b", "python", family="other"), "another family than qwen:1.5b-dense"),
    ],
)
def test_why_a_named_one_does_not_fit(draft: SubModel, reason: str | None) -> None:
    found = unfit(DENSE, draft)
    assert found is None if reason is None else reason in str(found)


def test_the_language_of_a_request_that_names_its_model() -> None:
    router = Router(lambda: STORE, Sessions(lambda: 0.0), default_base="qwen:0.5b")

    def language(query: Query) -> str | None:
        return router.language(query, router.route(query))

    assert language(Query(DENSE.name, prompt=CODE)) == "python"
    assert language(Query(DENSE.name, "rust", prompt=CODE)) == "rust"
    assert language(Query(DENSE.name, path="a.java", prompt=CODE)) == "java"
    assert language(Query(DENSE.name, prompt="x")) is None
    assert language(Query("qwen:1.5b", prompt=CODE)) == "python"  # routed within the base
    assert language(Query("auto", "java", session="me")) == "java"
    assert language(Query(DENSE.name, prompt="x", session="me")) == "java"
    assert drafts_for(DENSE, "java", STORE)[0] == Draft("qwen:0.5b-java", "language")
