from __future__ import annotations

import io

from rich.console import Console

from nas.report.tables import table

COLUMNS = ["name", "from", "decisions", "PSNR"]
ROWS = [["tmics [red]", "somewhere " * 20, 12, 35.98123], ["darts", "elsewhere", 3, None]]


def printed(
    title: str = "Spaces [x]", rows: list[list[str | int | float | None]] = ROWS, **options: object
) -> list[str]:
    console = Console(file=io.StringIO(), **options)  # type: ignore[arg-type]
    table(title, COLUMNS, rows, console=console)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


def test_a_file_gets_a_line_for_each_row_whatever_its_length() -> None:
    title, head, rule, first, second = printed(width=40)
    assert title == "Spaces [x]"
    assert head.split() == COLUMNS
    assert set(rule) == {"─"}
    assert first.split() == ["tmics", "[red]", *["somewhere"] * 20, "12", "35.98"]
    assert second.split() == ["darts", "elsewhere", "3", "–"]


def test_numbers_stand_to_the_right() -> None:
    _, head, _, first, second = printed(width=40)
    assert head.index("decisions") + len("decisions") == first.index("12") + 2 == second.rindex("3") + 1
    assert len(head) == len(first) == len(second)


def test_a_narrow_terminal_folds_and_loses_nothing() -> None:
    lines = printed(width=50, force_terminal=True, color_system=None)
    assert max(map(len, lines)) <= 50
    assert " ".join(lines).count("somewhere") == 20


def test_no_rows_and_no_title() -> None:
    assert printed(title="", rows=[])[0].split() == COLUMNS
