"""What every command does alike: where it reads its settings, how it answers, and how it says that it cannot."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType

from service.settings import Settings

AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]


class Refused(Exception):  # noqa: N818 - it says what is the matter
    """The command cannot do what it was asked; the message is for the user, and so is each of `faults`."""

    def __init__(self, message: str, faults: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.faults = faults


def settings() -> Settings:
    """The settings of the environment.

    Raises:
        Refused: one is not legal.
    """
    try:
        return Settings.from_environment()
    except ValueError as error:
        raise Refused(str(error)) from error


def show_answer(answer: Any, table: RenderableType, *, as_json: bool) -> None:
    """Prints an answer, as JSON or as its table."""
    if as_json:
        print_json(answer)
    else:
        print_table(table)


def print_table(what: RenderableType) -> None:
    """Prints a table in colours on a terminal, and in whole lines elsewhere."""
    console = Console()
    if console.is_terminal:
        console.print(what, highlight=False)
        return
    console = Console(width=10_000)  # whoever reads a pipe wants whole lines, and no spaces at their ends
    with console.capture() as captured:
        console.print(what, highlight=False)
    say("\n".join(line.rstrip() for line in captured.get().splitlines()))


def print_json(answer: Any, *, indent: int | None = 2) -> None:
    """Prints an answer as JSON, at once."""
    sys.stdout.write(json.dumps(answer, indent=indent, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def say(text: str, *, end: str = "\n") -> None:
    """Prints a line, at once: a reader that is gone is noticed here and not at the exit."""
    sys.stdout.write(text + end)
    sys.stdout.flush()


def complain(text: str, faults: Sequence[str] = ()) -> None:
    """Prints a line on stderr, and one for each fault."""
    sys.stderr.write(f"sweepserve: {text}\n")
    for fault in faults:
        sys.stderr.write(f"  {fault}\n")
