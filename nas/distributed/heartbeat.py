"""Notices ranks that are lost: each rank counts up in the store that all of them share."""

from __future__ import annotations

import os
import sys
import threading

from torch.distributed import Store  # type: ignore[attr-defined]  # PyTorch documents it there

PERIOD = 1.0
"""Seconds between two beats."""
MISSED = 20
"""Beats of this rank without one of another, after which that one is lost."""
LOST = 2
"""The exit code of a process that has lost another rank."""


class Heartbeat:
    """A thread that beats, and ends this process with one line on standard error if another rank does not.

    Most lost ranks are noticed at once, because their connection closes. A machine that is gone, or a process that
    stands still, closes none: then a sum over ranks would wait forever.

    Args:
        store: shared by all ranks; of this thread alone.
        rank: of this process.
        count: the number of ranks.
    """

    def __init__(self, store: Store, rank: int, count: int) -> None:
        self._store, self._rank, self._count = store, rank, count
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nas heartbeat", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop beating."""
        self._ended.set()

    def _run(self) -> None:
        seen, missed = [0] * self._count, [0] * self._count
        while not self._ended.wait(PERIOD):
            try:
                self._store.add(_key(self._rank), 1)
                for other in range(self._count):
                    beats = self._store.add(_key(other), 0)
                    missed[other] = missed[other] + 1 if beats == seen[other] else 0
                    seen[other] = beats
            except RuntimeError:  # the store is gone with the process that held it
                lost = "the process that connects the ranks"
            else:
                if max(missed) < MISSED:
                    continue
                lost = f"rank {missed.index(max(missed))}"
            if not self._ended.is_set():
                _abort(f"nas: rank {self._rank}: {lost} does not answer; repeat the command with --resume to continue")
            return


def _key(rank: int) -> str:
    return f"nas/alive/{rank}"


def _abort(message: str) -> None:
    """End the process at once, whatever it waits for."""
    os.write(sys.__stderr__.fileno() if sys.__stderr__ is not None else 2, f"{message}\n".encode())
    os._exit(LOST)
