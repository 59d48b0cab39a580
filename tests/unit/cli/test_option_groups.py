"""Options declared once as fields of a dataclass, used by a command as one object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer
from typer.testing import CliRunner

from subllm.cli.option_groups import grouped


@dataclass(frozen=True)
class Size:
    width: Annotated[int, typer.Option(min=1, help="Across.")]
    deep: Annotated[bool, typer.Option("--deep", help="Down.")] = False
    names: Annotated[list[str] | None, typer.Option("--name")] = None


@grouped
def command(
    *,
    where: Annotated[str, typer.Argument()] = "here",
    size: Size,
    loud: Annotated[bool, typer.Option("--loud")] = False,
) -> None:
    """Show what was given."""
    typer.echo(f"{where} {size} {loud}")


app = typer.Typer(add_completion=False, rich_markup_mode=None)
app.command()(command)


def ran(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.output


def test_fields_are_options_and_come_as_one_object() -> None:
    assert ran("--width", "3") == (0, "here Size(width=3, deep=False, names=None) False\n")
    given = ("there", "--deep", "--width", "3", "--name", "a", "--name", "b", "--loud")
    assert ran(*given) == (0, "there Size(width=3, deep=True, names=['a', 'b']) True\n")


def test_fields_are_checked_as_options_are() -> None:
    status, out = ran()
    assert status == 2 and "Missing option '--width'" in out
    status, out = ran("--width", "0")
    assert status == 2 and "--width" in out


def test_help_stands_in_the_order_of_the_signature() -> None:
    _, out = ran("--help")
    assert "Show what was given." in out
    places = [out.index(word) for word in ("--width", "Across.", "--deep", "Down.", "--loud")]
    assert places == sorted(places)
