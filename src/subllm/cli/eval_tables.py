"""Results of `subllm eval` for a person and for a program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from subllm.cli import console

if TYPE_CHECKING:
    from subllm.measuring.evaluation.records import Result

Column = str | tuple[str, console.Align]


def show(results: Sequence[Result], json_output: bool) -> None:
    """Facts, then a table with a row for each language, or for each task of a domain."""
    if json_output:
        console.emit_json({"results": [_document(result) for result in results]})
        return
    _facts(results)
    tables = {"pass": _problems, "questions": _domain, "perplexity": _perplexity,
              "agreement": _agreement}  # fmt: skip
    own = (table for figure, table in tables.items() if figure in results[0].figures)
    next(own, _scores)(results)


def _document(result: Result) -> dict[str, Any]:
    return {
        **result.header.model_dump(mode="json"),
        "figures": result.figures,
        "records": str(result.path),
    }


def _facts(results: Sequence[Result]) -> None:
    """What all results have in common, but for the tasks of a domain."""
    header = results[0].header
    model, sampling = header.model, header.sampling
    tasks = ", ".join(dict.fromkeys(result.header.task for result in results))
    rows = [("model", f"{model.name}: {model.pattern}, {model.values}, head {model.head}")]
    if sampling is not None:
        how = "greedy"
        if sampling.temperature:
            how = f"temperature {sampling.temperature:g}, top-p {sampling.top_p:g}, "
            how += f"seed {sampling.seed}"
        form = {"raw": "raw completion", "chat": "chat", "fim": "fill-in-the-middle"}
        asked = form[header.prompt or "raw"]
        rows.append(("task", f"{tasks}; {asked}, {how}, {sampling.max_tokens} tokens"))
    else:
        rows.append(("task", tasks))
    for result in results:
        data = result.header.data
        rows.append(("data", f"{data.source} ({data.digest[:19]})"))
    for result in results:
        rows.append(("records", str(result.path)))
    console.facts(rows)
    console.result("")


def _problems(results: Sequence[Result]) -> None:
    ks = [entry["k"] for entry in results[0].figures["pass"]]
    exact = any("exact_match" in result.figures for result in results)
    columns: list[Column] = ["LANGUAGE"]
    columns += [(f"PASS@{k}", "right") for k in ks] + [("EXACT", "right")] * exact
    dense = any("retention" in result.figures for result in results)
    columns += [("DENSE", "right"), ("RETENTION", "right")] if dense else []
    columns += [("CANONICAL", "right"), ("TOKENS EACH", "right"), ("TIME", "right")]
    rows = []
    for result in results:
        figures = result.figures
        row = [result.header.language]
        for entry in figures["pass"]:
            low, high = entry["low"] * 100, entry["high"] * 100
            row.append(f"{entry['value'] * 100:.1f} ({low:.0f}-{high:.0f})")
        if exact:
            match = figures.get("exact_match")
            row.append("-" if match is None else f"{match * 100:.1f}")
        if dense:
            row += _kept(figures.get("retention"))
        solved = figures["canonical"]
        row.append(f"{solved['passed']}/{solved['run']}" if solved["run"] else "none")
        row.append(f"{figures['tokens_per_problem']:.0f}")
        row.append(console.duration(sum(figures["wall_seconds"].values())))
        rows.append(row)
    console.table(columns, rows)
    for result in results:
        _remark(result)


def _kept(retention: Mapping[str, Any] | None) -> list[str]:
    """The dense base's pass@k, and the share of it that is left."""
    if retention is None:
        return ["-", "-"]
    ratio = retention["ratio"]
    return [f"{retention['dense_pass'] * 100:.1f}", "-" if ratio is None else f"{ratio:.2f}"]


def _remark(result: Result) -> None:
    """What must be known to read the figures."""
    figures, language = result.figures, result.header.language
    solved = figures["canonical"]
    if solved["failing"]:
        count = len(solved["failing"])
        fail = "solution fails" if count == 1 else "solutions fail"
        console.note(
            f"{language}: {count} canonical {fail}, which counts against the model: "
            f"{', '.join(solved['failing'])}"
        )
    total = figures["problems"] * figures["samples_per_problem"]
    if figures["new_samples"] < total:
        console.note(
            f"{language}: the time is that of the {figures['new_samples']} samples made last; "
            f"{total - figures['new_samples']} were there before"
        )
    if solved["without"]:
        count = len(solved["without"])
        console.note(f"{language}: {count} problems come without a canonical solution")


def _perplexity(results: Sequence[Result]) -> None:
    console.table(
        ["LANGUAGE", ("PERPLEXITY", "right"), ("TOKENS", "right")],
        [
            [r.header.language, f"{r.figures['perplexity']:.3f}", f"{r.figures['tokens']:,}"]
            for r in results
        ],
    )


def _agreement(results: Sequence[Result]) -> None:
    console.table(
        ["LANGUAGE", ("SAME TOKEN", "right"), ("SAME FROM START", "right"), ("TOKENS", "right")],
        [
            [
                r.header.language,
                f"{r.figures['agreement'] * 100:.1f} %",
                f"{r.figures['common_tokens']:.1f} of {r.figures['tokens_per_prompt']}",
                f"{r.figures['tokens']:,}",
            ]
            for r in results
        ],
    )


def _domain(results: Sequence[Result]) -> None:
    rows = []
    for result in results:
        figures = result.figures
        low, high = figures["low"] * 100, figures["high"] * 100
        rows.append(
            [
                result.header.task,
                figures["metric"],
                f"{figures['score'] * 100:.1f} ({low:.0f}-{high:.0f})",
                f"{figures['questions']:,}",
                console.duration(figures["wall_seconds"]),
            ]
        )
    if len(results) > 1:
        mean = sum(result.figures["score"] for result in results) / len(results)
        rows.append(["mean", "", f"{mean * 100:.1f}", "", ""])
    columns: list[Column] = ["TASK", "METRIC", ("SCORE", "right")]
    console.table([*columns, ("QUESTIONS", "right"), ("TIME", "right")], rows)
    for note in dict.fromkeys(note for result in results for note in result.figures["notes"]):
        console.note(note)


def _scores(results: Sequence[Result]) -> None:
    """Of a measure that has no columns of its own."""
    names = [score.name for score in results[0].scores]
    columns: list[Column] = ["LANGUAGE", *((name.upper(), "right") for name in names)]
    rows = [
        [result.header.language, *(f"{score.value:.3f}" for score in result.scores)]
        for result in results
    ]
    console.table(columns, rows)
