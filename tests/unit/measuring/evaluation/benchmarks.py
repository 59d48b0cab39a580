"""Benchmark data: rows of every form, and the real files where they lie beside the project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from subllm.measuring.evaluation.data import load_file
from subllm.measuring.evaluation.problems import Benchmark

SHARED = Path(__file__).parents[5] / "shared" / "data"
FILES = {
    "python": "humaneval_python.jsonl.gz",
    "java": "humaneval_java.jsonl.gz",
    "cpp": "humaneval_cpp.jsonl.gz",
    "javascript": "humaneval_js.jsonl.gz",
}

HUMANEVAL: dict[str, Any] = {
    "task_id": "HumanEval/0",
    "prompt": 'def add(a, b):\n    """Sum."""\n',
    "entry_point": "add",
    "canonical_solution": "    return a + b\n",
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
}
HUMANEVAL_X: dict[str, Any] = {
    "task_id": "CPP/0",
    "prompt": "#include<vector>\nusing namespace std;\nint add(int a, int b){\n",
    "declaration": "int add(int a, int b){\n",
    "canonical_solution": "    return a + b;\n}\n",
    "test": "#include<assert.h>\nint main(){ assert(add(1, 2) == 3); }\n",
    "example_test": "",
}
INFILLING: dict[str, Any] = {
    "task_id": "SingleLineInfilling/HumanEval/0/L0",
    "entry_point": "add",
    "prompt": "def add(a, b):\n",
    "suffix": "    return total\n",
    "canonical_solution": "    total = a + b\n",
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
}
MBPP: dict[str, Any] = {
    "task_id": 11,
    "text": "Write a function to add.",
    "code": "def add(a, b):\r\n  return a + b",
    "test_list": ["assert add(1, 2) == 3", "assert add(0, 0) == ZERO"],
    "test_setup_code": "ZERO = 0",
    "challenge_test_list": [],
}
MULTIPL_E: dict[str, Any] = {
    "name": "HumanEval_0_add",
    "language": "js",
    "prompt": "//Sum.\nfunction add(a, b){\n",
    "tests": "const assert = require('node:assert');\nassert.equal(add(1, 2), 3);\n",
    "stop_tokens": ["\nfunction ", "\n/*"],
}


def shared(name: str) -> Path:
    """A file of the data beside the project; skips the test where there is none."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"NO BENCHMARK DATA: {path} is not there")
    return path


def humaneval_x(language: str) -> Benchmark:
    return load_file(shared(FILES[language]), language)
