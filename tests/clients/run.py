"""Ask a server through the clients that people use, real ones from their registries.

    scripts/test clients                      all of them (installs 3 GB into .build/clients once)
    scripts/test clients openai ollama.js     some
    scripts/test clients --tiny               with a random model: whether they speak to each other
    scripts/test clients --url http://127.0.0.1:11435 --model NAME [CLIENT...]

OpenAI's, Ollama's, Anthropic's and Mistral's own, litellm, llm, langchain, aider, opencode,
Continue, tabby-agent, JupyterLab in a headless Chromium (apt-get install chromium); and
schemathesis by the server's own description of itself. The models are those of SUBLLM_HOME;
`subllm add qwen2.5-coder:0.5b` makes one that will do.

Clients are installed from their registries into .build/clients, never into the project's own
environment. Nothing but the standard library is needed here.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PLACE = ROOT / ".build" / "clients"
PYTHON = ("openai", "ollama", "anthropic", "mistral", "litellm", "llm", "langchain")
NODE = ("openai", "ollama", "continue", "tabby")
CLIENTS = {
    **{name: (f"python/use_{name}.py", "python") for name in PYTHON},
    "aider": ("python/use_aider.py", "aider"),
    "opencode": ("python/use_opencode.py", "opencode"),
    "jupyter": ("python/use_jupyter.py", "jupyter"),
    "schemathesis": ("python/use_schemathesis.py", "schemathesis"),
    **{f"{name}.js": (f"js/use_{name}.mjs", "js") for name in NODE},
}
LONGEST = 900  # seconds that one client may take


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def install(kind: str) -> None:
    """The packages of one environment; nothing where they have not changed."""
    place = PLACE / kind
    listed = {
        "python": HERE / "python" / "requirements.txt",
        "aider": HERE / "python" / "requirements-aider.txt",
        "jupyter": HERE / "python" / "requirements-jupyter.txt",
        "schemathesis": HERE / "python" / "requirements-schemathesis.txt",
        "js": HERE / "js" / "package.json",
        "opencode": HERE / "opencode" / "package.json",
    }[kind]
    stamp, now = place / "stamp", hashlib.sha256(listed.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == now:
        return
    say(f"installing {listed.relative_to(ROOT)}")
    if listed.name == "package.json":
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(listed, place / "package.json")
        command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
    else:
        venv.create(place, with_pip=True, clear=True)
        pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        command = [str(place / "bin" / "python"), *pip, "-r", str(listed)]
    subprocess.run(command, cwd=place, check=True, stdin=subprocess.DEVNULL)
    stamp.write_text(now)


def command_of(name: str) -> list[str]:
    script, kind = CLIENTS[name]
    if kind in ("opencode", "jupyter"):  # programs; what tells them where to ask is ours
        return [str(ROOT / ".venv" / "bin" / "python"), str(HERE / script)]
    if kind != "js":
        return [str(PLACE / kind / "bin" / "python"), str(HERE / script)]
    # Modules are looked up from where a script is.
    for source in (HERE / "js").glob("*.mjs"):
        shutil.copy(source, PLACE / "js")
    return ["node", str(PLACE / "js" / Path(script).name)]


@contextmanager
def server(program: Path) -> Iterator[str]:
    """`subllm serve` on a free port; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    running = subprocess.Popen([program, "serve", "--port", str(port)], stderr=subprocess.PIPE)
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{url}/health", timeout=5)
                break
            except OSError:
                if running.poll() is not None:
                    break
                time.sleep(0.1)
        if running.poll() is not None:
            assert running.stderr is not None
            sys.exit(running.stderr.read().decode() or "subllm serve ended")
        yield url
    finally:
        running.terminate()
        running.wait(30)


def tiny_home() -> Path:
    """A store with the tests' random model, made once."""
    home = PLACE / "tiny"
    if not home.exists():
        code = (
            "import sys; from pathlib import Path; from unit.cli import tiny_store\n"
            "place = Path(sys.argv[1])\n"
            "tiny_store.build(place / 'home', tiny_store.write_checkpoint(place / 'checkpoint'))\n"
        )
        paths = os.pathsep.join(str(ROOT / "tests" / part) for part in (".", "unit"))
        python = ROOT / ".venv" / "bin" / "python"
        command = [str(python), "-c", code, str(home)]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": paths})
    return home / "home"


def first_model(url: str) -> str:
    with urllib.request.urlopen(f"{url}/v1/models", timeout=30) as reply:
        names = [model["id"] for model in json.load(reply)["data"]]
    dense = [name for name in names if "-dense" in name]
    return (dense or names)[0]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/test clients",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("clients", nargs="*", metavar="CLIENT", help=", ".join(CLIENTS))
    parser.add_argument("--url", help="of a running server; default: one of its own")
    parser.add_argument("--model", help="default: the first dense model that is served")
    parser.add_argument(
        "--tiny", action="store_true", help="of a random model: quick, says nothing"
    )
    given = parser.parse_args()
    names = given.clients or list(CLIENTS)
    if unknown := [name for name in names if name not in CLIENTS]:
        parser.error(f"unknown: {', '.join(unknown)}; choose from {', '.join(CLIENTS)}")
    for kind in dict.fromkeys(CLIENTS[name][1] for name in names):
        install(kind)
    if given.url:
        return run_all(names, given.url, given.model or first_model(given.url))
    if given.tiny:
        os.environ["SUBLLM_HOME"] = str(tiny_home())
    with server(ROOT / ".venv" / "bin" / "subllm") as url:
        return run_all(names, url, given.model or first_model(url))


def run_all(names: list[str], url: str, model: str) -> int:
    say(f"asking {model} at {url}")
    environment = {**os.environ, "SUBLLM_URL": url, "SUBLLM_MODEL": model, "NO_COLOR": "1"}
    environment["PYTHONPATH"] = str(HERE.parent)  # for what the tests have, such as a browser
    failed = 0
    for name in names:
        began = time.monotonic()
        try:
            done = subprocess.run(
                command_of(name),
                cwd=PLACE,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=LONGEST,
            )
            passed, output = done.returncode == 0, done.stdout.decode(errors="replace")
        except subprocess.TimeoutExpired as error:
            passed, output = False, (error.stdout or b"").decode(errors="replace")
        took = time.monotonic() - began
        print(f"{'ok' if passed else 'FAILED':7}{name:14}{took:7.1f} s", flush=True)
        if not passed:
            failed += 1
            print(output, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
