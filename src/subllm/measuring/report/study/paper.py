"""The figures of the paper, as data, so that ours stand beside them.

"Deriving Coding-Specific Sub-Models from LLMs using Resource-Efficient Pruning"
(Puccioni et al., 2025): Wanda, 50 % unstructured. Figure 2 is a picture without numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

TITLE = "Puccioni et al. 2025"
TABLE_IV_MODEL = "CodeLlama-13B"
TABLE_IV_SCORE = "pass@10"

TABLE_IV: dict[str, dict[str, float]] = {
    "dense": {"python": 71.0, "java": 68.3, "cpp": 64.1, "javascript": 67.7},
    "python": {"python": 61.0, "java": 55.2, "cpp": 54.2, "javascript": 59.3},
    "java": {"python": 56.1, "java": 60.1, "cpp": 54.2, "javascript": 55.6},
    "cpp": {"python": 56.0, "java": 54.2, "cpp": 57.1, "javascript": 56.3},
    "javascript": {"python": 56.7, "java": 55.7, "cpp": 50.9, "javascript": 60.2},
}
"""Language sub-models of CodeLlama-13B, pass@10 on HumanEval in each language, in percent:
calibrated on -> language -> score. It has no general sub-model."""


@dataclass(frozen=True)
class BestSubModel:
    """A row of Table III: scores in percent, of the dense model and of the best sub-model."""

    model: str
    domain: str
    before: float
    after: float
    calibration: str


TABLE_III: tuple[BestSubModel, ...] = (
    BestSubModel("CodeLlama-7B", "code", 60.50, 53.03, "py_alpaca"),
    BestSubModel("CodeLlama-7B", "csr", 52.30, 49.30, "hellaswag"),
    BestSubModel("CodeLlama-7B", "translation", 47.48, 44.40, "wmt14"),
    BestSubModel("CodeLlama-7B", "math", 17.81, 11.00, "math_instruct"),
    BestSubModel("Mistral-7B", "code", 60.50, 47.28, "py_alpaca"),
    BestSubModel("Mistral-7B", "csr", 61.40, 58.20, "openbookqa"),
    BestSubModel("Mistral-7B", "translation", 52.95, 51.31, "wmt14"),
    BestSubModel("Mistral-7B", "math", 32.90, 27.82, "math_qa"),
    BestSubModel("Gemma-7B", "code", 52.90, 47.07, "apps"),
    BestSubModel("Gemma-7B", "csr", 40.57, 38.90, "openbookqa"),
    BestSubModel("Gemma-7B", "translation", 50.41, 48.60, "opus_books"),
    BestSubModel("Gemma-7B", "math", 46.40, 36.16, "math_orca"),
    BestSubModel("CodeLlama-13B", "code", 71.00, 61.00, "py_alpaca"),
    BestSubModel("CodeLlama-13B", "csr", 54.70, 52.50, "hellaswag"),
    BestSubModel("CodeLlama-13B", "translation", 51.47, 49.50, "wmt14"),
    BestSubModel("CodeLlama-13B", "math", 26.76, 21.68, "math_qa"),
)


def retention(row: str, language: str) -> float | None:
    """Share of the dense score in Table IV that a sub-model keeps; None where it has none."""
    score = TABLE_IV.get(row, {}).get(language)
    return None if score is None else score / TABLE_IV["dense"][language]


def margin(language: str) -> tuple[str, float] | None:
    """The next best sub-model on a language and by how many points the language's own is
    better, in Table IV."""
    if language not in TABLE_IV["dense"]:
        return None
    others = {row: scores[language] for row, scores in TABLE_IV.items()
              if row not in ("dense", language)}  # fmt: skip
    best = max(others, key=others.__getitem__)
    return best, TABLE_IV[language][language] - others[best]
