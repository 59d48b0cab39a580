"""Which model drafts for which, and for whom never."""

from __future__ import annotations

import pytest

from subllm.serving.routing.drafts import Draft, drafts_for, gain, unfit
from subllm.serving.routing.router import Query, Router, SubModel
from subllm.serving.routing.sessions import Sessions

CODE = "def f(x):\n    return x is not None\n"


def sub(
    size: str, language: str, tag: str = "", family: str = "qwen", likeness: float | None = 0.95
) -> SubModel:
    """As if weights were bytes; a sub-model keeps half of them."""
    parameters = {"0.5b": 500, "1.5b": 1500, "7b": 7000}[size]
    base = f"{family}:{size}"
    name = f"{base}-{language}" + (f"-{tag}" if tag else "")
    share = 1.0 if language == "dense" else 0.4 if tag == "small" else 0.5
    return SubModel(name, base, language, tag, parameters, int(share * parameters), likeness)


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


def test_the_language_then_what_is_for_all() -> None:
    """Alike and half as large, the general one brings more than the dense one."""
    rest = [("qwen:0.5b-general", "general"), ("qwen:0.5b-dense", "dense")]
    assert names(DENSE, "python") == [("qwen:0.5b-python", "language"), *rest]
    assert names(DENSE, "rust") == rest  # never the sub-model of another language
    assert names(DENSE, None) == rest
    assert names(DENSE, "dense") == names(DENSE, "general") == rest
    assert names(DENSE, "java", [DENSE, sub("0.5b", "java")]) == [("qwen:0.5b-java", "language")]


def test_a_sub_model_that_lost_too_much_comes_after_the_dense_one() -> None:
    """Plain Wanda's 8:16 of the 0.5B has 0.83 of the dense base's first choices; one that says
    nothing is taken for that."""
    plain, unsaid = (sub("0.5b", "python", likeness=x) for x in (0.78, None))
    for models in ([DENSE, plain, sub("0.5b", "dense")], [DENSE, sub("0.5b", "dense"), plain]):
        assert [reason for _, reason in names(DENSE, "python", models)] == ["dense", "language"]
    assert gain(DENSE, unsaid) == gain(DENSE, sub("0.5b", "python", likeness=0.83))


def test_the_estimate_by_hand() -> None:
    """0.93 right, a third of the bytes: six drafted give 1.8967 times, more or fewer less."""
    chance, step = 0.93, 500 / 1500
    by_length = [sum(chance**i for i in range(n + 1)) / (1 + n * step) for n in range(1, 9)]
    assert by_length.index(max(by_length)) == 5
    assert (
        gain(DENSE, sub("0.5b", "dense"))
        == pytest.approx(max(by_length))
        == pytest.approx(1.8967, abs=1e-4)
    )


def test_only_what_is_smaller_drafts() -> None:
    assert names(sub("0.5b", "dense"), "python") == []  # its own sub-model is not faster enough
    big = [name for name, _ in names(sub("7b", "dense"), "python")]
    small, larger = big.index("qwen:0.5b-python"), big.index("qwen:1.5b-python")
    assert small == 0 < larger  # alike, but the small one is read faster
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
