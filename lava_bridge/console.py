"""The command line's kinds of arguments, and its tables, no wider than the terminal."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from .errors import BridgeError

__all__ = ["OutputFile", "Shape", "refuse_overwriting", "show"]

# Columns of a table that does not go to a terminal, at least.
LOG_WIDTH = 160

# Of a column beside its text: a space on either side, and a line.
AROUND = 3


class Shape(click.ParamType):
    """``C,H,W`` or ``C``."""

    name = "C,H,W"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        try:
            return tuple(int(part) for part in value.split(","))
        except ValueError:
            self.fail(f"expected integers such as 1,8,8, found {value!r}", param, ctx)


class OutputFile(click.ParamType):
    """A file to write. What can't be one is refused before the work whose result it would hold."""

    name = "path"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        path = Path(value)
        if value == "-":
            raise BridgeError("-: results go to a file, not to the standard output; name one")
        if path.is_dir():
            raise BridgeError(f"{path}: is a directory, not a file; name a file in it")
        if not path.parent.is_dir():
            raise BridgeError(
                f"{path}: can't be written (there is no folder {path.parent}); make it first"
            )
        return value


def refuse_overwriting(output: str, **read: str | None) -> None:
    """Refuse an output that is a file which the command reads, by whatever name or link.

    A BridgeError is raised; ``read`` are those files by what they are, None where there is none.
    """
    for what, path in read.items():
        if path is not None and _same_file(output, path):
            named = "" if output == path else f" ({path})"
            raise BridgeError(
                f"{output}: is the {what}{named} that this command reads, and would be replaced; "
                "name another file to write"
            )


def _same_file(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):  # one of them is no file, and not there to be replaced
        return False


def show(table: Table) -> None:
    """Print a table: on a terminal in parts of its width, in a log, which has none, in one."""
    console = Console()
    if sys.stdout is not None and sys.stdout.isatty():
        for part in fitted(table, console.width):
            console.print(part)
    else:
        wide = Console(width=10_000).measure(table).maximum
        Console(width=max(LOG_WIDTH, wide)).print(table)


def fitted(table: Table, width: int) -> list[Table]:
    """A table in parts that are no wider than ``width``, if may be; each has the first column."""
    first, *others = (_width(column) for column in table.columns)
    parts: list[list[int]] = [[]]
    room = width - 1 - first
    for index, needed in enumerate(others, start=1):
        if parts[-1] and needed > room:
            parts.append([])
            room = width - 1 - first
        parts[-1].append(index)
        room -= needed
    if len(parts) == 1:
        return [table]
    return [
        _part(table, [0, *indices], title=None if number else table.title)
        for number, indices in enumerate(parts)
    ]


def _width(column: Column) -> int:
    texts = (column.header, column.footer, *column.cells)
    return AROUND + max(Text.from_markup(str(text)).cell_len for text in texts)


def _part(table: Table, indices: Iterable[int], title: Any) -> Table:
    columns = [table.columns[index] for index in indices]
    part = Table(title=title, show_footer=table.show_footer)
    for column in columns:
        part.add_column(column.header, column.footer, justify=column.justify)
    for cells in zip(*(column.cells for column in columns), strict=True):
        part.add_row(*cells)
    return part
