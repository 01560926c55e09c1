"""Commands on several ranks: which ones can, and which rank tells the user what."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout

from nas.distributed.environment import launched, launched_rank
from nas.errors import ConfigError, NASError

RANKED = ("search", "retrain", "evaluate", "predict")
"""The commands that several ranks can run."""


@contextmanager
def on_ranks(arguments: Sequence[str]) -> Iterator[None]:
    """Run a command on the ranks that `torchrun` started, if it did; only rank 0 prints.

    Raises:
        ConfigError: the command runs in one process.
    """
    if launched() == 1:
        yield
        return
    command = next((argument for argument in arguments if not argument.startswith("-")), "")
    if command not in RANKED:
        known = ", ".join(RANKED)
        raise ConfigError(
            f"torchrun must start one of the commands {known}, got '{command}', which runs in one process. Run it"
            " without torchrun"
        )
    from nas.distributed.ranks import first_tells, joined

    try:
        with joined(), open(os.devnull, "w") as nowhere, redirect_stdout(nowhere if launched_rank() else sys.stdout):
            yield
    except NASError as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun ends the other ranks once one has ended
        if first_tells(error):
            sys.exit(2)
        raise
