"""Print tables in the terminal, and write them as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nas.errors import printable
from nas.files import write_text

Cell = str | int | float | None


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], *, console: Console | None = None
) -> None:
    """Print a table. Numbers are aligned to the right and have four digits; None is a dash.

    In a terminal long texts wrap inside their column. Elsewhere each row is one line, for other programs to read.

    Args:
        title: the title; may be empty.
        columns: the names of the columns.
        rows: the cells of each row.
        console: where to print; standard output if None.
    """
    console = console or Console()
    grid = Table(title=Text(printable(title), "bold") if title else None, title_justify="left", box=box.SIMPLE_HEAD)
    grid.show_edge = grid.pad_edge = False
    for i, name in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[i], int | float | None) for row in rows)
        grid.add_column(Text(printable(name)), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(printable(format_cell(cell))) for cell in row))
    if console.is_terminal:
        console.print(grid)
    else:
        text = io.StringIO()
        Console(file=text, width=1_000_000, force_terminal=False, color_system=None).print(grid)
        lines = (line.rstrip() for line in text.getvalue().splitlines())
        console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str | int]]) -> None:
    """Write a table as CSV; raises `InvalidFileError` if the file cannot be written."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def format_cell(cell: Cell) -> str:
    """Return a cell as text: floats with four significant digits, None as a dash."""
    if cell is None:
        return "–"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
