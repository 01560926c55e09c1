"""Tables in the terminal."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nas.errors import printable

Cell = str | int | float | None


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], *, console: Console | None = None
) -> None:
    """Print rows under columns; numbers to the right with four digits, None as a dash, texts as they are.

    In a terminal long texts fold within their column, so that nothing is cut off; elsewhere each row is one line,
    whatever its length, for other programs to read.
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


def format_cell(cell: Cell) -> str:
    """A cell as text: floats with four significant digits, None as a dash."""
    if cell is None:
        return "–"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
