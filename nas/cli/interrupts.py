"""Signals that end a command: a run saves the step at hand first, anything else stops at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


class Interrupts:
    """Handles SIGINT and SIGTERM inside its `with` block: the first raises `KeyboardInterrupt`, the next exits.

    During an import the first exits too: an exception there can abort the process inside an extension module.

    Signals that the process was started to ignore, as a shell's background jobs are, stay ignored.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._deferred = self._raised = self._told = False

    def __enter__(self) -> None:
        self.received, self._raised, self._told = None, False, False
        if threading.current_thread() is threading.main_thread():
            for number in _WORDS:
                if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                    self._before[number] = signal.signal(number, self._receive)

    def __exit__(self, *_: object) -> None:
        if self.received is None:  # else the end of the process must not be interrupted with a traceback
            for number in list(self._before):
                signal.signal(number, self._before.pop(number))

    @contextmanager
    def deferred(self) -> Iterator[Callable[[], bool]]:
        """Inside, the first signal interrupts nothing: what this gives tells whether it came. The end raises it."""
        self._deferred = True
        try:
            yield lambda: self.received is not None
        finally:
            self._deferred = False
        if self.received is not None:
            raise KeyboardInterrupt

    def tell(self, hints: Iterable[object]) -> int:
        """Print the one line about an interruption; returns the exit code."""
        number = self.received or signal.SIGINT
        self._told = True
        print("; ".join([f"nas: {_WORDS[number]}", *map(str, hints)]), file=sys.stderr)
        return 128 + number

    def _receive(self, number: int, frame: FrameType | None) -> None:
        first = self.received is None
        self.received = self.received or signal.Signals(number)
        if first and self._deferred:
            if sys.stderr.isatty():
                _write("stopping after this step; interrupt again to stop at once")
            return
        if self._raised or _importing(frame):
            if not self._told:
                _write(_WORDS[self.received])
            os._exit(128 + self.received)
        self._raised = True
        raise KeyboardInterrupt


def _importing(frame: FrameType | None) -> bool:
    """Whether an import is running."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _write(text: str) -> None:
    with suppress(OSError):  # not by `print`, which the signal may have interrupted
        os.write(sys.stderr.fileno(), f"nas: {text}\n".encode())


interrupts = Interrupts()
"""Those of this process."""
