"""What commands print."""

from __future__ import annotations

import sys

from nas.errors import printable


def say(*values: object, end: str = "\n", error: bool = False) -> None:
    """Print values. Control characters, which may come from a file, are escaped, so that none reaches the terminal.

    Args:
        values: with spaces between them; lines stay lines.
        end: what follows them.
        error: whether to print to standard error.
    """
    lines = " ".join(map(str, values)).split("\n")
    print("\n".join(map(printable, lines)), end=end, file=sys.stderr if error else sys.stdout)
