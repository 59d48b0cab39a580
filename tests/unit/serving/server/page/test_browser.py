"""The page in a real browser, as a person uses it: by keyboard, with a screen reader, narrow."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
from fakes.browser import Browser, Page, executable

from unit.serving.server.page.test_page import Facts
from unit.serving.server.tiny import CPP, PYTHON, Live, live, shelf

ROWS = "document.querySelectorAll('#models tbody tr').length"
TOLD = "document.getElementById('told').textContent"
ANSWER = "document.querySelector('#answer .new').textContent"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if executable() is None:
        warnings.warn("no Chromium is installed: the page was NOT tested", stacklevel=1)
        pytest.skip("no Chromium is installed ('apt install chromium'): the page was NOT tested")
    with Browser() as running:
        yield running


@pytest.fixture
def page(browser: Browser, shared: Live) -> Iterator[Page]:
    browser.events.clear()
    opened = browser.open(f"{shared.url}/")
    opened.wait(f"{ROWS} == 3")
    yield opened
    assert opened.troubles() == []
    assert {url[: len(shared.url)] for url in opened.requests()} == {shared.url}
    opened.call("Page.close")


def ask(page: Page, mode: str, text: str, tokens: int = 5) -> None:
    page.run(f"document.querySelector('input[value={mode}]').click()")
    page.run(f"document.getElementById('text').value = {text!r}")
    page.run(f"document.getElementById('tokens').value = {tokens}")


def test_keyboard_alone(page: Page) -> None:
    """From the address bar to an answer: skip link, modes, model, text, run."""
    page.press("Tab")
    assert page.run("document.activeElement.textContent") == "To the playground"
    page.press("Enter", text="\r")
    page.press("Tab")
    assert page.run("document.activeElement.value") == "complete"
    page.press("ArrowRight")
    assert page.run("document.querySelector('input[name=mode]:checked').value") == "fill"
    page.press("ArrowLeft")
    order = []
    for _ in range(5):
        page.press("Tab")
        order.append(page.run("document.activeElement.id"))
    assert order == ["model", "language", "tokens", "temperature", "text"]
    page.type("def f(x):")
    page.press("Enter", control=True)
    page.wait(f"{TOLD}.includes('first after')")
    assert page.run(ANSWER) != ""
    assert "python" in page.run(TOLD)


def test_fills_in_at_the_cursor(page: Page, shared: Live) -> None:
    ask(page, "fill", "def f(a):")
    page.run("document.getElementById('text').setSelectionRange(6, 6)")
    page.run("document.getElementById('text').dispatchEvent(new Event('click'))")
    assert "line 1, column 7" in page.run("document.getElementById('hint').textContent")
    page.run("document.getElementById('ask').requestSubmit()")
    page.wait(f"{TOLD}.includes('first after')")
    written = page.run(ANSWER)
    assert page.run("document.getElementById('answer').textContent") == f"def f({written}a):"
    page.run("document.getElementById('take').click()")
    assert page.run("document.getElementById('text').value") == f"def f({written}a):"
    assert page.run("document.getElementById('text').selectionStart") == len(f"def f({written}")


def test_chat_goes_on(page: Page) -> None:
    for turn in ("one", "two"):
        ask(page, "chat", turn)
        page.run("document.getElementById('ask').requestSubmit()")
        page.wait("!document.getElementById('run').disabled")
    who = "[...document.querySelectorAll('#answer .who')].map(e => e.textContent).join()"
    assert page.run(who) == "You,Model,You,Model"


def test_stop_ends_the_work(page: Page, shared: Live) -> None:
    engine = shared.shelf.engine(PYTHON) if shared.shelf.engines else None
    ask(page, "complete", "def f(x):", tokens=200)
    page.run(f"document.getElementById('model').value = {PYTHON!r}")
    if engine is not None:
        engine.delay = 0.02
    page.run("document.getElementById('ask').requestSubmit()")
    page.wait("!document.getElementById('stop').disabled")
    page.press("Escape")
    page.run("document.getElementById('stop').click()")
    page.wait("document.getElementById('stop').disabled")
    if engine is not None:
        engine.delay = 0.0
    assert "stopped" in page.run(TOLD) or "first after" in page.run(TOLD)


def test_errors_are_told(page: Page) -> None:
    ask(page, "complete", "x" * 600)
    page.run("document.getElementById('ask').requestSubmit()")
    page.wait(f"{TOLD}.includes('context')")
    page.forget("Log.entryAdded")  # the browser notes the status 400 itself


def test_a_screen_reader_is_told(page: Page) -> None:
    roles = page.roles()
    for expected in (
        ("heading", "Playground"),
        ("heading", "Models"),
        ("heading", "Requests"),
        ("radio", "Complete"),
        ("combobox", "Model"),
        ("spinbutton", "Tokens"),
        ("textbox", "Code to go on with"),
        ("region", "Answer"),
        ("button", "Run"),
        ("columnheader", "Like the dense base"),
    ):
        assert expected in roles
    assert "status" in [role for role, _ in roles]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_it_fits(page: Page, width: int, dark: bool) -> None:
    """Nothing sticks out, and tables stay tables to a screen reader where rows are cards."""
    page.resize(width, 900)
    page.dark(dark)
    assert page.run("document.documentElement.scrollWidth") <= width
    assert ("columnheader", "Size") in page.roles()
    ground = page.run("getComputedStyle(document.body).backgroundColor")
    shade = [int(part) for part in ground[4:-1].split(",")]
    assert (sum(shade) < 200) is dark


def test_what_is_being_made_is_shown(browser: Browser) -> None:
    with live(shelf(), facts=Facts()) as running:
        browser.events.clear()
        opened = browser.open(f"{running.url}/")
        opened.wait("!document.getElementById('work').hidden")
        assert opened.run("document.querySelector('#work li').textContent") == (
            "tiny-1m-cpp: 3 blocks done"
        )
        assert opened.troubles() == []
        opened.call("Page.close")


def test_the_key_is_asked_for(browser: Browser) -> None:
    with live(shelf(), api_key="säcret") as guarded:
        browser.events.clear()
        opened = browser.open(f"{guarded.url}/")
        opened.wait("document.getElementById('key-dialog').open")
        for key in ("wrong", "säcret"):
            opened.run(f"document.getElementById('key').value = {key!r}")
            opened.run("document.getElementById('key-form').requestSubmit()")
            if key == "wrong":
                opened.wait("document.getElementById('key-wrong').textContent != ''")
        opened.wait(f"{ROWS} == 3")
        assert CPP in opened.run("document.getElementById('models').textContent")
        assert opened.run("localStorage.length") == 0
        opened.call("Page.close")
