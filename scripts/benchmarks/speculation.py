"""What speculation brings, and that it never costs: the same requests with and without drafts.

    scripts/bench speculation [--base 0.5b] [--values int8 int4] [--rounds 5] [--drafts auto]
                              [--draft MODEL] [--only TITLE...] [--json FILE]

Dense models of the base, in turns without and with drafts in one process each, medians of the
ratios round by round. Texts must be the same. No workload may be slower than 0.97 of plain
decoding. For bases that have one, the smaller base drafts, dense in int4.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from benchmarks.comparing.problems import BESIDE, load
from benchmarks.comparing.ways import ENGINES, draft_model
from benchmarks.drafting.measure import Compared, compare, document, say, table
from benchmarks.drafting.workloads import STREAMS, Workload, workloads
from benchmarks.engines.models import dense, run_cli
from benchmarks.engines.worker import Worker, WorkerError

from subllm.errors import SubllmError
from subllm.machine import cpu_name, usable_cores
from subllm.models.store.store import Store
from subllm.models.store.tokenizers import open_tokenizer


def main() -> None:
    arguments = parse(sys.argv[1:])
    try:
        rows = run(
            Store(Path(os.environ["SUBLLM_HOME"])),
            arguments.base,
            arguments.values,
            rounds=arguments.rounds,
            threads=arguments.threads or usable_cores(),
            drafts=arguments.drafts,
            draft=arguments.draft,
            data=arguments.data,
            only=arguments.only,
        )
    except SubllmError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("\nstopped")
    threads = arguments.threads or usable_cores()
    print(f"{arguments.base}: {cpu_name()}, {threads} threads; tokens per second, medians of "
          f"{arguments.rounds} rounds\n")  # fmt: skip
    print(table(rows))
    if arguments.json:
        record = {"cpu": cpu_name(), "threads": threads, "rows": [document(row) for row in rows]}
        Path(arguments.json).write_text(json.dumps(record, indent=1) + "\n")


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench speculation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--base", default="qwen2.5-coder:0.5b", help="NAME, or 0.5b, 1.5b")
    parser.add_argument("--values", nargs="+", default=["int8", "int4"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="all cores")
    parser.add_argument("--drafts", choices=["auto", "ngram", "draft"], default="auto")
    parser.add_argument("--draft", default="", metavar="MODEL",
                        help="drafts for the base; 'none': n-grams alone")  # fmt: skip
    parser.add_argument("--data", default="", help="HumanEval-X in Python (.jsonl.gz)")
    parser.add_argument("--only", nargs="+", default=[], metavar="TITLE")
    parser.add_argument("--json", default="", metavar="FILE")
    arguments = parser.parse_args(argv)
    if ":" not in arguments.base:
        arguments.base = f"qwen2.5-coder:{arguments.base}"
    return arguments


def run(
    store: Store,
    base: str,
    values: list[str],
    *,
    rounds: int,
    threads: int,
    drafts: str = "auto",
    draft: str = "",
    data: str = "",
    only: list[str] | None = None,
) -> list[Compared]:
    """Every workload on the dense model of each of `values`. Without benchmark data, which
    `data` may name, those that need it are left out."""
    run_cli("pull", base)
    drafting = draft_model(store, base, draft)
    problems = load(data).problems if data or BESIDE.is_file() else ()
    if not problems:
        say(f"no benchmark data at {BESIDE}: workloads made of it are left out")
    rows = []
    for one in values:
        name = dense(store, base, one)
        manifest = store.model(name)
        tokenizer = open_tokenizer(store, manifest)
        wanted = [
            workload
            for workload in workloads(tokenizer, manifest.prompt, problems, rounds)
            if not only or any(word in workload.title for word in only)
        ]
        rows += _model(f"dense {one}", name, wanted, threads, drafting, drafts)
    return rows


def _model(
    title: str, name: str, wanted: list[Workload], threads: int, draft: str, drafts: str
) -> list[Compared]:
    longest = max((workload.longest for workload in wanted), default=1)
    command = [sys.executable, str(ENGINES / "ours_completing.py"), name, str(threads)]
    command += [str(longest), str(STREAMS), *([draft] if draft else [])]
    try:
        worker = Worker(name, command, {})
    except WorkerError as error:
        return [Compared(one.title, title, drafts, failed=str(error)) for one in wanted]
    try:
        return [compare(worker, one, title, drafts, say) for one in wanted]
    finally:
        worker.close()


if __name__ == "__main__":
    main()
