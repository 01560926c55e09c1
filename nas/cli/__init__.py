"""The command line. Each command is a thin call of `nas.front` or another package.

`app` is the application, `commands` runs one command, and `launching` runs it on the ranks of torchrun. `signals`
handles interruptions, `threads` limits how long threads spin, and `terminal` prints. The commands are in `running`,
`inspecting`, `models`, `genotypes`, `checking`, `conformance`, `examining`, `reporting`, `tuning`, `benchmarking`,
`correlating` and `zero_cost`. `targets` reads the options among their arguments. Heavy imports happen inside the
commands, so that `--help` is fast. This file imports little, so that an interruption during other imports is handled.

May import every package. Start with `commands`.
"""

from __future__ import annotations

import sys

from nas.cli.signals import handler
from nas.cli.threads import limit_spinning

__all__ = ["main"]


def main() -> None:
    """Run the `nas` command. A user error prints one line and exits with 2, a signal with 128 plus its number."""
    try:
        with handler:
            limit_spinning()  # before anything imports torch
            from nas.cli import commands

            commands.run(sys.argv[1:])
    except BaseException as error:  # an import may replace an interruption by another error
        if not isinstance(error, KeyboardInterrupt) and handler.received is None:
            raise
        sys.exit(handler.tell(error.args if isinstance(error, KeyboardInterrupt) else ()))
