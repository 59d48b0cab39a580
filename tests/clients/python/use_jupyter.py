"""JupyterLab with notebook-intelligence, set up as `subllm config jupyter` does, in a headless
Chromium: grey text appears behind what is typed, and Tab takes it. Run by the project's own Python.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from asked import MODEL, URL
from fakes.browser import Browser, Page, executable

from subllm.cli.editors.endpoint import Endpoint
from subllm.cli.editors.jupyter import TOOL

BEGIN = "def is_prime(n):\n    if n < 2:\n        return False\n    for i in "
END = "\n\nprint(is_prime(7))\n"
GHOST = "(document.querySelector('.jp-GhostText') || {textContent: ''}).textContent"
TEXT = "[...document.querySelectorAll('.cm-line')].map((line) => line.textContent).join('\\n')"
PATIENCE = 120  # seconds


def write_settings(home: Path) -> None:
    file = home / ".jupyter" / "nbi" / "config.json"
    file.parent.mkdir(parents=True)
    file.write_text(TOOL.text(Endpoint(URL, MODEL, 4096)))


def started(home: Path, port: int) -> subprocess.Popen[bytes]:
    program = Path("jupyter", "bin", "jupyter-lab").resolve()
    options = [
        "--no-browser",
        f"--ServerApp.port={port}",
        "--IdentityProvider.token=",
        "--allow-root",
    ]
    return subprocess.Popen(
        [str(program), *options, f"--ServerApp.root_dir={home / 'work'}"],
        env={**os.environ, "HOME": str(home), "JUPYTER_PLATFORM_DIRS": "0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=sys.stderr,
    )


def load_the_model() -> None:
    """JupyterLab waits ten seconds for a completion, and no longer."""
    body = json.dumps({"model": MODEL, "prompt": BEGIN, "suffix": END, "max_tokens": 1}).encode()
    headers = {"Content-Type": "application/json"}
    asked = urllib.request.Request(f"{URL}/v1/completions", body, headers)
    urllib.request.urlopen(asked, timeout=PATIENCE).read()


def until_it_answers(url: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            urllib.request.urlopen(f"{url}/api", timeout=5)
            return
        except OSError:
            assert time.monotonic() < deadline, "JupyterLab does not answer"
            time.sleep(0.2)


def until_it_is_there(page: Page, what: str) -> str:
    deadline = time.monotonic() + PATIENCE
    while not (found := page.run(what)):
        if time.monotonic() > deadline:
            page.screenshot(Path(tempfile.gettempdir(), "jupyter.png"))
            raise AssertionError(f"never there: {what}; see jupyter.png")
        time.sleep(0.1)
    return str(found)


def type_before_the_end(page: Page) -> None:
    """What is in the file already is what follows the cursor."""
    until_it_is_there(page, "!!document.querySelector('.jp-FileEditor .cm-content')")
    page.run("document.querySelector('.jp-FileEditor .cm-content').focus()")
    time.sleep(1)
    page.type(BEGIN[:-1])
    time.sleep(15)  # the extension's own first request loads litellm
    page.type(BEGIN[-1:])


def main() -> None:
    assert executable() is not None, "no Chromium is installed: apt-get install chromium"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place, Browser() as browser:
        home, url = Path(place), f"http://127.0.0.1:{port}"
        write_settings(home)
        load_the_model()
        file = home / "work" / "prime.py"
        file.parent.mkdir()
        file.write_text(END)
        lab = started(home, port)
        try:
            until_it_answers(url)
            page = browser.open(f"{url}/lab/tree/prime.py")
            type_before_the_end(page)
            ghost = until_it_is_there(page, GHOST)
            if len(sys.argv) > 1:
                page.screenshot(Path(sys.argv[1]))
            page.press("Tab")
            until_it_is_there(page, f"!({GHOST})")
            text = str(page.run(TEXT))
        finally:
            lab.terminate()
            lab.wait(60)
    taken = text.removeprefix(BEGIN).removesuffix(END)
    print(repr(ghost), repr(taken), sep="\n", file=sys.stderr)
    # The grey text's lines are elements of their own, with no line breaks between.
    assert taken.strip() and "".join(ghost.split()) == "".join(taken.split()), text


if __name__ == "__main__":
    main()
