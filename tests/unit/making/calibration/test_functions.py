"""Functions as a person would cut them out, in each language."""

from __future__ import annotations

import pytest

from subllm.making.calibration.functions import functions

PYTHON = '''
import os

X = 1

@cache
# why
def first(a,
          b):
    """Doc."""

    def inner():
        return a

    return inner

class Thing:
    @property
    async def name(
        self,
    ) -> str:
        return "x"

    def stub(self): ...

y = first(1, 2)
'''

JAVA = """
package a;

public class Main {
    private int count = new Thing(3).size();

    /**
     * Adds.
     */
    @Override
    public static <T> List<T> add(List<T> a, T b) throws IOException {
        if (a == null) {
            return null;
        }
        return a;
    }

    abstract void nothing();
}
"""

CPP = """
#include <vector>
namespace a {

// Sums.
template <typename T>
T sum(const std::vector<T>& values)
{
    T total{};
    for (const T& v : values) {
        total += v;
    }
    return total;
}

int declared(int x);

Matrix& Matrix::operate(int x) const {
    return *this;
}
}
int main() {
    return a::sum<int>({1});
}
"""

JAVASCRIPT = """
const x = require('x');

/** Adds. */
export async function add(a, b) {
  return a + b;
}

const twice = (value) => {
  return value * 2;
};

class Box {
  #open(key) {
    if (key) {
      return key;
    }
  }
}

describe('x', () => {
  run();
});
"""


def test_python() -> None:
    found = functions(PYTHON, "python")
    assert found == [
        '@cache\n# why\ndef first(a,\n          b):\n    """Doc."""\n\n'
        "    def inner():\n        return a\n\n    return inner\n",
        '@property\nasync def name(\n    self,\n) -> str:\n    return "x"\n',
    ]


def test_java() -> None:
    (found,) = functions(JAVA, "java")
    assert found.startswith("/**\n * Adds.\n */\n@Override\npublic static <T> List<T> add(")
    assert found.endswith("\n    return a;\n}\n")


def test_cpp() -> None:
    found = functions(CPP, "cpp")
    assert [text.splitlines()[0] for text in found] == [
        "// Sums.",
        "Matrix& Matrix::operate(int x) const {",
        "int main() {",
    ]
    assert found[0].endswith("    return total;\n}\n")
    assert found[1] == "Matrix& Matrix::operate(int x) const {\n    return *this;\n}\n"


def test_javascript() -> None:
    assert functions(JAVASCRIPT, "javascript") == [
        "/** Adds. */\nexport async function add(a, b) {\n  return a + b;\n}\n",
        "const twice = (value) => {\n  return value * 2;\n};\n",
        "#open(key) {\n  if (key) {\n    return key;\n  }\n}\n",
    ]


@pytest.mark.parametrize(
    ("tag", "code"),
    [
        ("go", "func Add(a int) int {\n\treturn a\n}\n"),
        ("rust", "pub fn add(a: i32) -> i32 {\n    a\n}\n"),
        ("ruby", "def add(a)\n  a\nend\n"),
    ],
)
def test_other_languages(tag: str, code: str) -> None:
    assert functions(f"x\n\n{code}\ny\n", tag) == [code]


@pytest.mark.parametrize("code", ["", "\n", "def", "    def x(:\n", "}\n{\n", "*\n*/ int f() {\n"])
def test_broken_code_is_no_trouble(code: str) -> None:
    for tag in ("python", "java", "cpp", "javascript", "x"):
        functions(code, tag)
