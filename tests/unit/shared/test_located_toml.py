"""TOML that is read into models: right, and wrong in every way with the line that says so."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict, Field

from subllm.errors import UsageError
from subllm.located_toml import read_toml


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Step(Closed):
    name: str
    rate: float = Field(default=0.5, gt=0)


class File(Closed):
    format: int = 1
    title: str = ""
    sizes: list[int] = []
    first: Step | None = None
    steps: list[Step] = []


def read(text: str) -> File:
    return read_toml(text, File, "own.toml", newest=1)


def test_what_is_written_and_what_is_left_out() -> None:
    file = read('sizes = [1, 2]\n[first]\nname = "a"\n[[steps]]\nname = "b"\nrate = 2\n')
    assert (file.sizes, file.title, file.format) == ([1, 2], "", 1)
    assert file.first == Step(name="a")
    assert file.steps == [Step(name="b", rate=2.0)]
    assert read("") == File()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\ntitel = 'x'", "own.toml:2: unknown key 'titel'; did you mean title?"),
        ("# one\n# two\nzzzzzz = 1", "own.toml:3: unknown key 'zzzzzz'"),
        ("title = 'x'\nsizes = ['a']", "own.toml:2: key 'sizes.0': "),
        ("title = 3", "own.toml:1: key 'title': Input should be a valid string, not 3"),
        ("sizes = ['1']", "a valid integer, not '1'"),
        ("format = 2\nunheard = 1", "own.toml:1: format 2 is newer than this version reads (1)"),
        ("[first]\nname = 'a'\nrat = 1", "own.toml:3: unknown key 'first.rat'; did you mean rate?"),
        ("title = 'x'\n[first]\nrate = 1", "own.toml:2: key 'first.name' is missing"),
        ("first.name = 'a'\nfirst.rate = 0", "own.toml:2: key 'first.rate': "),
        ("[[steps]]\nname='a'\n[[steps]]\nname='b'\nrate=-1", "own.toml:5: key 'steps.1.rate'"),
        ("title = '''\nsizes = 1\n'''\nsizes = 2", "own.toml:4: key 'sizes'"),
        ("title = 'x'\ntitle = 'y'", "own.toml:2: not valid TOML: "),
        ("title = ", "own.toml:1: not valid TOML: "),
        ("a = 1\nsizes = [1,\n", "own.toml:2: not valid TOML: "),
    ],
)
def test_errors_are_one_line_with_the_line(text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        read(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
