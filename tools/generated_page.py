"""Pages in Markdown that programs write: tables, and parts of pages between two marks."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from nas.errors import ConfigError
from nas.files import write_text


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    return [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]


def replaced(page: str, begin: str, text: str, end: str) -> str:
    """Return the page with `text` between the first `begin` and the first `end` after it.

    Raises:
        ConfigError: the page lacks a mark.
    """
    before, found, rest = page.partition(begin)
    _, last, after = rest.partition(end)
    if not found or not last:
        raise ConfigError(f"the page must have the marks {begin.strip()} and {end.strip()}, got one of them or none")
    return before + begin + text + end + after


def write(about: str | None, path: Path, updated: Callable[[str], str]) -> int:
    """Bring a page up to date, or with --check only compare; returns the exit status."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--check", action="store_true", help="exit with 1 if the page is not up to date")
    arguments = parser.parse_args()
    text = path.read_text(encoding="utf-8")
    if arguments.check:
        return int(updated(text) != text)
    write_text(path, updated(text))
    return 0
