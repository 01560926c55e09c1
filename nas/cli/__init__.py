"""The command line: each command a thin call. Heavy imports happen inside the commands, so that `--help` is quick.

This module imports next to nothing, so that an interruption during the other imports is handled.
"""

from __future__ import annotations

import sys

from nas.cli.interrupts import interrupts

__all__ = ["main"]


def main() -> None:
    """Entry point of the `nas` command: a user's mistake is one line and exit code 2, a signal one and 128 + signal."""
    try:
        with interrupts:
            from nas.cli import commands

            commands.run(sys.argv[1:])
    except BaseException as error:  # imports may turn an interruption into an error of their own
        if not isinstance(error, KeyboardInterrupt) and interrupts.received is None:
            raise
        sys.exit(interrupts.tell(error.args if isinstance(error, KeyboardInterrupt) else ()))
