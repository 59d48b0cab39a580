"""The command that a study's records name, from what it was asked."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from subllm.measuring.evaluation.study.options import StudyOptions


def told(options: StudyOptions, out: Path) -> str:
    """The command that asks for this, without a file and without directories of this machine."""
    from subllm.measuring.evaluation.study.options import StudyOptions

    usual = StudyOptions(options.bases, options.calibrations, options.tasks)
    how, plainly = options.how, usual.how
    tasks = ("tasks", ",".join(Path(task).name for task in options.tasks))
    said: list[tuple[str, object]]
    if options.models:
        said = [("models", ",".join(options.models)), tasks]
    else:
        said = [("base", ",".join(options.bases))]
        texts = [calibration.text for calibration in options.calibrations]
        plain = [text for text in texts if "=" not in text]
        said += [("calibration", ",".join(plain))] if plain else []
        said += [("calibration", text) for text in texts if "=" in text]
        said += [tasks, ("methods", ",".join(options.methods))]
        said += [("patterns", ",".join(options.patterns))]
        said += [("sequences", options.sequences)]  # whatever its default will be
    said += [("data", path.name) for path in how.files]
    said += [("data", f"{task}={path.name}") for task, path in how.own.items()]
    for name, value, default in (
        ("language", ",".join(how.languages), ""),
        ("k", ",".join(map(str, how.ks)), "1"),
        ("samples", how.samples, plainly.samples),
        ("temperature", how.temperature, plainly.temperature),
        ("top_p", how.top_p, plainly.top_p),
        ("max_tokens", how.max_tokens, plainly.max_tokens),
        ("seed", how.seed, plainly.seed),
        ("limit", how.limit, plainly.limit),
        ("prompt", how.form, plainly.form),
        ("values", options.values, usual.values),
        ("head", options.head, usual.head),
        ("seq_len", options.length, usual.length),
        ("batch", how.together, plainly.together),
    ):
        if value != default:
            said.append((name, value))
    words = ["subllm", "study"]
    for key, given in said:
        words += ["--set", f"{key}={given}"]
    words += ["--out", out.name if out.is_absolute() or ".." in out.parts else str(out)]
    return shlex.join(words)
