"""Every rule of the routing order, each winning over the next one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subllm.errors import NoModelError, UnknownNameError
from subllm.languages import is_known
from subllm.serving.routing.router import Message, Query, Route, Router, SubModel
from subllm.serving.routing.sessions import Sessions, session_key

BASE = "qwen:0.5b"


def sub(language: str, base: str = BASE, tag: str = "") -> SubModel:
    return SubModel(f"{base}-{language}{'-' + tag if tag else ''}", base, language, tag)


FOUR = [sub(language) for language in ("python", "java", "cpp", "javascript")]
PYTHON, JAVA, CPP, JS = (model.name for model in FOUR)
CODE = {
    "python": "def f(x):\n    return x is not None\n",
    "java": "public static void main(String[] args) {\n",
    "rust": 'fn main() { let mut x = 1; println!("{x}"); }\n',
}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def make(models: list[SubModel] | None = None, clock: Clock | None = None) -> Router:
    served = FOUR if models is None else models
    return Router(lambda: served, Sessions(clock or Clock()), default_base=BASE)


def route(query: Query, models: list[SubModel] | None = None) -> Route:
    return make(models).route(query)


# Strongest first: each query also holds all weaker evidence, for another language.
ORDER = [
    (Query(CPP, "java", "a.js", "<|file_sep|>a.py\n"), CPP, "model"),
    (Query("auto", "Java", "a.js", "<|file_sep|>a.py\n"), JAVA, "language"),
    (Query("auto", None, "a.js", "<|file_sep|>a.py\n```java\n"), JS, "path"),
    (Query("auto", None, None, "<|file_sep|>a.cpp\n```java\n"), CPP, "path"),
    (Query("auto", prompt=f"```java\n{CODE['python']}"), JAVA, "fence"),
    (
        Query("auto", messages=(Message("user", f"in C++:\n```java\n{CODE['python']}"),)),
        JAVA,
        "fence",
    ),
    (Query("auto", messages=(Message("user", f"in C++ {CODE['python']}"),)), CPP, "named"),
    (Query("auto", prompt=CODE["python"]), PYTHON, "content"),
    (Query("auto", prompt="x", suffix=CODE["java"]), JAVA, "content"),
    (Query("auto", messages=(Message("user", CODE["java"]),)), JAVA, "content"),
]


@pytest.mark.parametrize(("query", "model", "reason"), ORDER)
def test_the_stronger_rule_wins(query: Query, model: str, reason: str) -> None:
    found = route(query)
    assert (found.model, found.reason) == (model, reason)
    again = make()
    again.route(Query("auto", "javascript", session="s"))  # a session changes nothing of it
    assert again.route(Query(**{**vars(query), "session": "s"})) == found


@pytest.mark.parametrize("model", [None, "", "auto", BASE])
def test_no_model_auto_and_a_base_are_routed(model: str | None) -> None:
    assert route(Query(model, "cpp")) == Route(CPP, "cpp", "language")


@pytest.mark.parametrize("stated", ["", "  ", "text", "plaintext", "unknown", "auto"])
def test_a_language_that_says_nothing_is_no_statement(stated: str) -> None:
    assert route(Query("auto", stated, prompt=CODE["java"])).reason == "content"


def test_the_newest_message_with_evidence_decides() -> None:
    chat = [
        Message("system", "You write Java."),
        Message("user", "sort this ```py\nx\n```"),
        Message("assistant", "```python\nsorted(x)\n```"),
    ]
    assert route(Query(messages=tuple(chat))).model == PYTHON
    assert route(Query(messages=(*chat, Message("user", "now in C++")))).model == CPP
    assert route(Query(messages=(*chat, Message("user", "faster please")))).model == PYTHON
    assert route(Query(messages=(chat[0], Message("user", "sort")))) == Route(JAVA, "java", "named")
    developer = Message("developer", "You write Java.")
    assert route(Query(messages=(developer, Message("user", "sort")))).model == JAVA


def test_what_is_to_be_translated_is_not_the_answers_language() -> None:
    text = "Translate to Java:\n```python\nx\n```"
    assert route(Query(messages=(Message("user", text),))) == Route(JAVA, "java", "named")


def test_names_in_code_are_not_asked_for() -> None:
    code = "What is this?\n\n#include <cstdio>\n// faster than Python or Java\nint main() {\n}\n"
    assert route(Query(messages=(Message("user", code),))) == Route(CPP, "cpp", "content")


def test_a_language_that_nobody_knows() -> None:
    with pytest.raises(UnknownNameError, match="unknown language 'pyhton'; did you mean python"):
        route(Query(PYTHON, "pyhton"))
    domain = [*FOUR, sub("chess")]
    assert route(Query(language="chess"), domain).model == f"{BASE}-chess"


def test_a_chat_of_megabytes_is_routed_by_its_ends() -> None:
    text = "In Java:\n" + "x = 1\n" * 500_000
    messages = (*[Message("user", "y " * 1000)] * 1000, Message("user", text))
    assert route(Query(messages=messages)).model == JAVA


def test_the_assistant_naming_a_language_is_no_wish() -> None:
    chat = (Message("user", "sort"), Message("assistant", "Shall I use Java?"))
    assert route(Query(messages=chat)).reason == "fallback"


def test_session_remembers_the_language_for_half_an_hour() -> None:
    clock = Clock()
    router = make(clock=clock)
    plain = Query("auto", prompt="x", session="me")
    router.route(Query("auto", "java", session="me"))
    router.route(Query("auto", "cpp", session="you"))
    assert router.route(plain) == Route(JAVA, "java", "session")
    clock.now += 1799
    assert router.route(plain).reason == "session"  # and its use renews it
    clock.now += 1799
    assert router.route(plain).reason == "session"
    clock.now += 1801
    assert router.route(plain).reason == "fallback"


def test_session_remembers_a_language_without_sub_model() -> None:
    router = make([*FOUR, sub("dense")])
    router.route(Query("auto", "python", session="me"))
    router.route(Query("auto", "rust", session="me"))
    found = router.route(Query("auto", prompt="x", session="me"))
    assert found == Route(f"{BASE}-dense", "rust", "fallback")


def test_an_exact_model_counts_as_the_sessions_language_but_dense_does_not() -> None:
    router = make([*FOUR, sub("dense")])
    plain = Query("auto", prompt="x", session="me")
    router.route(Query(CPP, session="me"))
    assert router.route(plain) == Route(CPP, "cpp", "session")
    router.route(Query(f"{BASE}-dense", session="me"))
    assert router.route(plain) == Route(CPP, "cpp", "session")


@pytest.mark.parametrize(
    "query", [Query(language="rust"), Query(path="x.rs"), Query(prompt=CODE["rust"])]
)
def test_a_language_without_sub_model_falls_back(query: Query) -> None:
    everything = [*FOUR, sub("general"), sub("dense")]
    assert route(query, everything) == Route(f"{BASE}-dense", "rust", "fallback")
    assert route(query, [*FOUR, sub("general")]).model == f"{BASE}-general"
    router = make()
    router.route(Query(language="cpp", session="you"))
    assert router.route(query).model == CPP  # the one used last, by anyone
    mine = Query(**{**vars(query), "session": "me"})
    router.route(Query(language="java", session="me"))
    router.route(Query(language="cpp", session="you"))
    assert router.route(mine).model == JAVA  # the one that I used last
    assert route(query, [sub("java")]).model == JAVA  # nothing used yet


def test_a_guess_never_overrules_a_statement() -> None:
    assert route(Query(language="rust", prompt=CODE["python"])).reason == "fallback"


def test_what_was_used_last_may_be_gone() -> None:
    served = list(FOUR)
    router = Router(lambda: served, Sessions(Clock()), default_base=BASE)
    router.route(Query(language="cpp", session="me"))
    served.remove(sub("cpp"))
    found = router.route(Query(prompt="x", session="me"))
    assert found.reason == "fallback" and found.model in {m.name for m in served}


def test_among_bases_and_tags() -> None:
    models = [
        sub("python", "big:7b"),
        sub("rust", "big:7b"),
        sub("python", tag="fast"),
        sub("python"),
        sub("java", tag="b"),
        sub("java", tag="a"),
    ]
    assert route(Query(language="python"), models).model == f"{BASE}-python"
    assert route(Query(language="java"), models).model == f"{BASE}-java-a"
    assert route(Query("big:7b", "python"), models).model == "big:7b-python"
    assert route(Query(language="rust"), models).model == "big:7b-rust"  # beats a fallback
    assert route(Query(BASE, "rust"), models).reason == "fallback"  # within the base asked for
    names = sorted({model.name for model in models} | {BASE, "big:7b"})
    assert make(models).ids() == [*names, "auto"]


def test_unknown_names() -> None:
    with pytest.raises(UnknownNameError) as caught:
        route(Query(f"{BASE}-pyton"))
    assert PYTHON in caught.value.nearest and "subllm list" in str(caught.value)
    with pytest.raises(NoModelError, match="subllm extract python"):
        route(Query("auto"), [])
    with pytest.raises(UnknownNameError):
        make().check("gpt-4")
    assert make().check("auto") == "auto"


def test_sessions_are_bounded_and_keys_keep_no_secret() -> None:
    sessions = Sessions(Clock(), limit=3)
    for name in "abc":
        sessions.put(name, "java", JAVA)
    sessions.put("a", None, JAVA)  # now the newest, its language kept
    sessions.put("d", "cpp", CPP)
    assert len(sessions) == 3 and sessions.get("b") is None
    assert (entry := sessions.get("a")) is not None and entry.language == "java"
    assert "secret" not in session_key("secret", "agent", "127.0.0.1")
    assert session_key("a", "b", "c") != session_key("a", "c", "b") != session_key("ab", "", "c")


TEXT = st.text(max_size=80) | st.sampled_from([*CODE.values(), "```py", "in C++", "a.js"])
NAMES = st.sampled_from([None, "", "auto", BASE, PYTHON])


@settings(max_examples=40)
@given(
    model=NAMES,
    language=st.none() | TEXT,
    path=st.none() | TEXT,
    prompt=TEXT,
    suffix=TEXT,
    chat=st.lists(
        st.builds(Message, st.sampled_from(["system", "user", "assistant"]), TEXT), max_size=3
    ),
    session=st.none() | st.just("s"),
)
def test_a_served_name_is_always_routed(
    model: str | None,
    language: str | None,
    path: str | None,
    prompt: str,
    suffix: str,
    chat: list[Message],
    session: str | None,
) -> None:
    router = make()
    if language and not is_known(language):
        with pytest.raises(UnknownNameError, match="unknown language"):
            router.route(Query(model, language, path, prompt, suffix, tuple(chat), session))
        language = None
    query = Query(model, language, path, prompt, suffix, tuple(chat), session)
    first = router.route(query)
    assert first.model in {m.name for m in FOUR}
    assert first.reason == "fallback" or sub(str(first.language)).name == first.model
    if first.reason not in ("fallback", "session"):
        assert router.route(query) == first
