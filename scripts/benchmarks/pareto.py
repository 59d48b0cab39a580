"""Speed against quality of every way to serve a base here, beside llama.cpp, as a picture.

    scripts/bench pareto --base qwen2.5-coder:0.5b [--rounds 5] [--limit 164] [--out DIR]
                         [--only TITLE...] [--speed-only | --quality-only] [--plan]

Each way is asked for the same greedy completions of HumanEval-X in Python, to their natural
end: some of them alone and in turns with the others, which tells its speed, all of them for its
pass@1. Both are kept by digests of model, data, settings and engine, in the user's cache
(SUBLLM_BENCH_CACHE): a run that was stopped goes on, and what did not change is not measured
again. Ways that draft are judged by what plain decoding wrote; how many of the timed texts are the
same is said. For speed, nothing else should run meanwhile; --quality-only may be run beside
other work beforehand (with --threads 1: llama.cpp's threads wait for each other by spinning).
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.comparing import problems, quality, results, speed
from benchmarks.comparing.clock import Clock, minutes, quality_seconds, speed_seconds
from benchmarks.comparing.results import Cell
from benchmarks.comparing.ways import WAYS, Served, chosen, prepare, without_drafts
from benchmarks.engines.models import dense, run_cli
from benchmarks.engines.peer import bench_cache
from benchmarks.engines.worker import WorkerError

from subllm.engine.bandwidth import read_bandwidth
from subllm.errors import SubllmError
from subllm.machine import cpu_name, usable_cores
from subllm.measuring.evaluation.problems import Benchmark
from subllm.measuring.evaluation.prompts import Prompter
from subllm.measuring.evaluation.sandbox import Sandbox
from subllm.measuring.evaluation.toolchains import toolchain
from subllm.models.store.store import Store
from subllm.models.store.tokenizers import open_tokenizer

EACH = 4
"""Completions of a way in each round."""


def main() -> None:
    arguments = parse(sys.argv[1:])
    try:
        run(arguments)
    except SubllmError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("\nstopped; the same command goes on from here")


def parse(argv: list[str]) -> argparse.Namespace:
    titles = "\n".join(f"  {way.title}" for way in WAYS)
    parser = argparse.ArgumentParser(
        prog="scripts/bench pareto",
        description=f"{__doc__}\nWays:\n{titles}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--base", default="qwen2.5-coder:0.5b", help="NAME, or 0.5b, 1.5b")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=int, default=None, help="first problems only")
    parser.add_argument("--only", nargs="+", default=[], metavar="TITLE",
                        help="ways whose titles hold one of these; =TITLE: that one")  # fmt: skip
    parser.add_argument("--data", default="", help="HumanEval-X in Python (.jsonl.gz)")
    parser.add_argument("--out", type=Path, default=Path(".build/pareto"), metavar="DIR")
    parser.add_argument("--threads", type=int, default=0, help="of every engine; all cores")
    parser.add_argument("--draft", default="", metavar="MODEL",
                        help="drafts for the base; 'none': n-grams alone")  # fmt: skip
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--speed-only", action="store_true")
    which.add_argument("--quality-only", action="store_true")
    parser.add_argument("--plan", action="store_true", help="say how long it takes, no more")
    parser.add_argument("--any-engine", action="store_true",
                        help="take texts that other versions of the engine wrote")  # fmt: skip
    parser.add_argument("--judge-drafts", action="store_true",
                        help="judge the texts of ways with drafts, too")  # fmt: skip
    parser.add_argument("--again-speed", action="store_true", help="forget measured speeds")
    parser.add_argument("--peer-python", default="", help="that has llama-cpp-python already")
    parser.add_argument("--gguf", default="", help="Q4_K_M file, if the base is no GGUF")
    arguments = parser.parse_args(argv)
    if ":" not in arguments.base:
        arguments.base = f"qwen2.5-coder:{arguments.base}"
    if arguments.rounds < 1 or (arguments.limit is not None and arguments.limit < 1):
        parser.error("--rounds and --limit take a number from 1 on")
    return arguments


def run(arguments: argparse.Namespace) -> None:
    base, threads = arguments.base, arguments.threads or usable_cores()
    load = os.getloadavg()[0]  # of others: what follows makes its own
    whole = problems.load(arguments.data)
    data = whole.first(arguments.limit)
    ways = chosen(arguments.only)
    store = Store(Path(os.environ["SUBLLM_HOME"]))
    run_cli("pull", base)
    served = prepare(
        ways,
        store,
        base,
        python=arguments.peer_python,
        gguf=arguments.gguf,
        draft=arguments.draft,
    )
    readings = [read_bandwidth(threads)]
    manifest = store.model(dense(store, base, "int8"))
    tokenizer = open_tokenizer(store, manifest)
    asked = problems.spread(data.problems, arguments.rounds, EACH)
    plan = problems.Plan([[problems.ask(one, tokenizer) for one in row] for row in asked])
    cache = bench_cache() / "pareto"
    speeds: list[speed.Speeds | None] = [None] * len(served)
    judged: dict[str, quality.Quality] = {}

    if not arguments.speed_only:
        prompter = Prompter(tokenizer, manifest.prompt, "raw")
        judged = judge(arguments, served, data, prompter, cache, threads, readings[0])
    if not arguments.quality_only:
        speeds = list(race(arguments, served, plan, cache, threads, readings, load))
    if arguments.plan:
        return
    if arguments.speed_only:
        judged = remembered(arguments, served, data, cache)
    cells = [
        cell(one, had, judged, arguments.judge_drafts)
        for one, had in zip(served, speeds, strict=True)
    ]
    machine = {
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "threads": threads,
        "load_before": load,
        "read_bandwidth": statistics.median(readings),
    }
    settings = {
        "rounds": arguments.rounds,
        "completions_a_round": EACH,
        "problems": len(data.problems),
        "of": len(whole.problems),
        "max_tokens": problems.MAX_TOKENS,
        "data": data.digest,
    }
    found = results.documents(base, cells, machine, settings)
    print(found["txt"])
    for path in results.write(arguments.out, base, found):
        print(path)


def listed(estimates: Iterable[tuple[str, float]]) -> None:
    for title, seconds in estimates:
        if seconds:
            print(f"  {title:32} {minutes(seconds):>8}", file=sys.stderr)


def cell(
    one: Served,
    had: speed.Speeds | None,
    judged: dict[str, quality.Quality],
    judge_drafts: bool,
) -> Cell:
    borrowed = borrows(one, judge_drafts)
    found = judged.get(one.way.plain if borrowed else one.way.title)
    return Cell(one, had, found, borrowed and found is not None, results.compared(had, found))


def borrows(one: Served, judge_drafts: bool) -> bool:
    """Whether the texts of plain decoding are judged for it: it should write the same."""
    return bool(one.way.drafts) and not judge_drafts


def to_judge(served: Sequence[Served], judge_drafts: bool) -> list[Served]:
    """Whose texts are judged: each way, for those that borrow the plain one."""
    found = {}
    for one in served:
        plain = without_drafts(one) if borrows(one, judge_drafts) else one
        found.setdefault(plain.way.title, plain)
    return list(found.values())


def judge(
    arguments: argparse.Namespace,
    served: Sequence[Served],
    data: Benchmark,
    prompter: Prompter,
    cache: Path,
    threads: int,
    bandwidth: float,
) -> dict[str, quality.Quality]:
    """Title -> quality; a way whose worker fails is left out."""
    found: dict[str, quality.Quality] = {}
    directory = cache / "quality"
    with Sandbox() as sandbox:
        tool = toolchain("python", sandbox)
        version = f"{tool.language} {tool.version()}"
        missing = []
        for one in to_judge(served, arguments.judge_drafts):
            wanted = quality.header(one, data, version)
            known = quality.recorded(directory, wanted, data, any_engine=arguments.any_engine)
            if known is None:
                missing.append(one)
            else:
                found[one.way.title] = known
        estimates = [quality_seconds(one, data, bandwidth) for one in missing]
        print(f"quality: {len(missing)} of {len(missing) + len(found)} ways to judge, about "
              f"{minutes(sum(estimates))}", file=sys.stderr)  # fmt: skip
        if arguments.plan:
            listed(
                (one.way.title, seconds) for one, seconds in zip(missing, estimates, strict=True)
            )
            return found
        clock = Clock(estimates)
        for one in missing:
            try:
                measured = quality.measure(one, data, prompter, tool, directory, threads, clock)
            except WorkerError as error:
                clock.part(f"{one.way.title} failed: {error}")
                continue
            found[one.way.title] = measured
            clock.part(f"{one.way.title}: pass@1 {measured.value:.1%}")
    return found


def remembered(
    arguments: argparse.Namespace, served: Sequence[Served], data: Benchmark, cache: Path
) -> dict[str, quality.Quality]:
    """What earlier runs judged."""
    with Sandbox() as sandbox:
        tool = toolchain("python", sandbox)
        version = f"{tool.language} {tool.version()}"
    found = {}
    for one in to_judge(served, arguments.judge_drafts):
        wanted = quality.header(one, data, version)
        known = quality.recorded(cache / "quality", wanted, data, any_engine=arguments.any_engine)
        if known is not None:
            found[one.way.title] = known
    return found


def race(
    arguments: argparse.Namespace,
    served: Sequence[Served],
    plan: problems.Plan,
    cache: Path,
    threads: int,
    readings: list[float],
    load: float,
) -> list[speed.Speeds]:
    """Speeds of all; `readings` of the read bandwidth are added to."""
    speeds = [speed.recorded(one, plan, threads, cache / "speed") for one in served]
    if arguments.again_speed:
        for had in speeds:
            had.rounds = {}
    counts = [
        sum(str(number) not in had.rounds for number in range(len(plan.rounds))) for had in speeds
    ]
    wanted = [
        (one.way.title, speed_seconds(one, plan, count, readings[0]))
        for one, count in zip(served, counts, strict=True)
    ]
    parts = [
        seconds / count
        for number in range(len(plan.rounds))
        for (_, seconds), count, had in zip(wanted, counts, speeds, strict=True)
        if str(number) not in had.rounds
    ]
    print(f"speed: {len(parts)} of {len(plan.rounds) * len(served)} samples to take, about "
          f"{minutes(sum(parts))}", file=sys.stderr)  # fmt: skip
    if arguments.plan:
        listed(wanted)
    if arguments.plan or not parts:
        return speeds
    if load > 0.3:
        print(f"warning: the machine is busy (load {load:.1f}); the speeds will not be worth "
              "much", file=sys.stderr)  # fmt: skip
    clock = Clock(parts)

    def say(what: str, one: Served | None) -> None:
        clock.part(f"{one.way.title if one else ''}: {what}")

    speed.measure(
        served, speeds, plan, threads, say, lambda: readings.append(read_bandwidth(threads))
    )
    return speeds


if __name__ == "__main__":
    main()
