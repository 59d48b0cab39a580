"""`subllm doctor`: what to expect of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from subllm.cli import console
from subllm.cli.context import Context, open_context

if TYPE_CHECKING:
    from subllm.errors import SubllmError

EXAMPLES = """
subllm doctor
subllm doctor --json
SUBLLM_ISA=avx2 subllm doctor       as a machine without AVX-512 would do
"""

# Bytes that the machine could have read in the time of a token, dense int4 in large pages, with
# AVX-512 on 2 cores of an Intel server that read 38 GB/s (95 and 33 tok/s): what a token reads,
# and what keeps the processor from reading all the time.
TOKEN_BYTES = {"0.5B": 0.40e9, "1.5B": 1.14e9}
NARROW = 0.9  # of that speed, without AVX-512
SERVING = {"0.5B": 1.0e9, "1.5B": 2.0e9}  # bytes of memory, with room for prompts
EXTRACTING = 1.7e9  # peak of the 1.5B; see README

State = Literal["good", "note", "bad"]


@dataclass(frozen=True)
class Finding:
    """One line. `error` is what a bad one makes the command fail with; `facts` are for --json."""

    name: str
    text: str
    state: State = "good"
    error: SubllmError | None = None
    facts: dict[str, Any] | None = None


def command(
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the findings as one JSON document.")
    ] = False,
) -> None:
    """Say what to expect here: processor, memory, GPU, store, network and server, a line each.

    Measures for a second how fast memory is read, which is what bounds the speed of writing.
    Nothing is changed. Exits with the code of the first thing that must be mended, if any.
    """
    context = open_context()
    findings = list(_findings(context))
    bad = [finding for finding in findings if finding.state == "bad"]
    verdict = _verdict(findings)
    if json_output:
        console.emit_json(
            {
                "findings": [
                    {"name": f.name, "state": f.state, "text": f.text, **(f.facts or {})}
                    for f in findings
                ],
                "verdict": verdict,
            }
        )
    else:
        marks = {"good": "ok", "note": "--", "bad": "!!"}
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            console.result(f"{marks[finding.state]}  {finding.name:{width}}  {finding.text}")
        console.result(f"\n{verdict}")
    for finding in bad:
        if finding.error is not None:
            raise finding.error


def _findings(context: Context) -> Iterator[Finding]:
    yield _processor(context)
    yield _kernels(context)
    yield _memory(context)
    yield from _pages()
    yield _bandwidth(context)
    for check in (_gpu, _store, _network, _server):
        yield check(context)


def _verdict(findings: list[Finding]) -> str:
    bad = [finding.name for finding in findings if finding.state == "bad"]
    if bad:
        return f"To be mended first: {', '.join(bad)}."
    told = (f.facts["expected"] for f in findings if f.facts and "expected" in f.facts)
    speeds: dict[str, float] = next(told, {})
    what = ", ".join(f"{size} about {speed:.0f} tok/s" for size, speed in speeds.items())
    slow = speeds and speeds["0.5B"] < 20
    end = "; completions will feel slow" if slow else ""
    return f"Ready. Expect of dense int4 models: {what}{end}."


def _processor(context: Context) -> Finding:
    from subllm.machine import cpu_name, usable_cores

    cores = usable_cores()
    threads = context.settings.threads or cores
    text = f"{cpu_name()}, {cores} cores usable"
    if threads != cores:
        text += f", {threads} threads by setting"
    return Finding("processor", text, facts={"cores": cores, "threads": threads})


def _kernels(context: Context) -> Finding:
    from subllm.errors import BackendError
    from subllm.kernels.native import core

    try:
        here = list(core().isas())
    except BackendError as error:
        return Finding("kernels", str(error), "bad", error)
    chosen = os.environ.get("SUBLLM_ISA") or here[0]
    if chosen not in here:
        other = BackendError(f"SUBLLM_ISA is {chosen}, but here run {', '.join(here)}")
        return Finding("kernels", str(other), "bad", other)
    state: State = "note" if chosen == "scalar" else "good"
    slow = ", which is slow: this processor has nothing faster" if chosen == "scalar" else ""
    text = f"{chosen}{slow} (of {', '.join(here)})"
    return Finding("kernels", text, state, facts={"isas": here, "chosen": chosen})


def _memory(context: Context) -> Finding:
    import psutil

    memory = psutil.virtual_memory()
    fits = [size for size, needed in SERVING.items() if memory.available >= needed]
    text = f"{console.size(memory.available)} free of {console.size(memory.total)}: "
    text += f"serves {' and '.join(fits)}" if fits else "too little to serve a model"
    if memory.available >= EXTRACTING:
        text += ", extracts both"
    facts = {"total_bytes": memory.total, "available_bytes": memory.available}
    return Finding("memory", text, "good" if fits else "note", facts=facts)


def _pages() -> Iterator[Finding]:
    """Nothing where the system has no such switch."""
    from subllm.kernels.sparsity.mapping import SYSTEM, large_page

    if not SYSTEM.exists():
        return
    page = large_page()
    text = f"weights are read in pages of {page >> 20} MB"
    if not page:
        text = "large ones are off, which makes writing a tenth to a third slower; as root: "
        text += f"echo madvise > {SYSTEM / 'enabled'}"
    yield Finding("pages", text, "good" if page else "note", facts={"large_page_bytes": page})


def _bandwidth(context: Context) -> Finding:
    from subllm.errors import BackendError
    from subllm.machine import usable_cores

    threads = context.settings.threads or usable_cores()
    try:
        from subllm.engine.bandwidth import read_bandwidth
        from subllm.kernels.native import core

        wide = (os.environ.get("SUBLLM_ISA") or core().isas()[0]).startswith("avx512")
        speed = read_bandwidth(threads)
    except BackendError as error:
        return Finding("reading", f"not measured: {error}", "bad", error)
    share = 1.0 if wide else NARROW
    expected = {size: round(share * speed / cost, 1) for size, cost in TOKEN_BYTES.items()}
    text = f"{speed / 1e9:.1f} GB/s from memory by {threads} threads together"
    return Finding("reading", text, facts={"bytes_per_second": round(speed), "expected": expected})


def _gpu(context: Context) -> Finding:
    from subllm.engine.cards import find_cards
    from subllm.engine.choice import choose_backend

    cards = find_cards()
    facts = {
        "cuda": bool(cards.usable),
        "cards": [
            {"device": c.device, "name": c.name, "total_bytes": c.total, "free_bytes": c.free}
            for c in cards.usable
        ],
    }
    if not cards.usable:
        why = f" ({cards.problem})" if cards.problem else ""
        text = f"none that is usable{why}: the processor computes"
        return Finding("GPU", text, "note" if cards.problem else "good", facts=facts)
    text = ", ".join(map(str, cards.usable)) + f", by the {choose_backend('auto', 'cuda')} backend"
    if cards.problem:
        text += f"; another is not usable ({cards.problem})"
    return Finding("GPU", text, "note" if cards.problem else "good", facts=facts)


def _store(context: Context) -> Finding:
    import shutil

    from subllm.errors import CorruptError, SubllmError
    from subllm.models.store.sizes import all_sizes

    home = context.settings.home
    try:
        sizes = all_sizes(context.store)
    except SubllmError as error:
        return Finding("store", str(error), "bad", error)
    broken = [name for name, size in sizes.items() if size.damaged or size.missing]
    if broken:
        damage = CorruptError(f"{', '.join(broken)}: damaged; 'subllm verify' says what to do")
        return Finding("store", str(damage), "bad", damage)
    there = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(there).free
    text = f"{home}, {len(sizes)} names, nothing missing; {console.size(free)} of disk free"
    state: State = "good"
    if free < 2e9:
        text, state = f"{text}, which is little for another base", "note"
    elif not sizes:
        text, state = f"{home} is empty: 'subllm run python' fetches and makes a model", "note"
    return Finding("store", text, state, facts={"names": len(sizes), "free_bytes": free})


def _network(context: Context) -> Finding:
    settings = context.settings
    if settings.offline:
        return Finding("network", "off by setting; what is in the store works", "note")
    from subllm.errors import AcquireError
    from subllm.models.acquire.hub_client import HubClient

    repos = [s.repo for b in context.catalog.bases.values() for s in b.sources if s.type == "hub"]
    client = HubClient(probe_seconds=settings.hub_probe_seconds)
    try:
        client.list_files(repos[0])
    except AcquireError:
        text = f"{client.endpoint} does not answer; some bases come from PyPI, models work offline"
        return Finding("network", text, "note", facts={"hub": False})
    return Finding("network", f"{client.endpoint} answers", facts={"hub": True})


def _server(context: Context) -> Finding:
    from subllm.cli import daemon
    from subllm.cli.server_client import ServerClient

    running = daemon.running(context.settings.home)
    if not running:
        return Finding("server", "none runs; 'subllm serve --detach' starts one", "note")
    urls = [server.url for server in running]
    states = {url: ServerClient(url, context.api_key).healthy() for url in urls}
    told = [f"{url} {'answers' if good else 'does not answer'}" for url, good in states.items()]
    state: State = "good" if all(states.values()) else "note"
    return Finding("server", ", ".join(told), state, facts={"servers": states})
