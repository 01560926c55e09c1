"""Signals end a command with one line and an exit code. `nas.front.interrupts` defers them during a step."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from types import FrameType
from typing import Any

from nas.cli.terminal import say
from nas.distributed.environment import launched_rank

_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


class Interrupts:
    """Handle SIGINT and SIGTERM inside a `with` block. The first signal raises `KeyboardInterrupt`, the next exits.

    During an import the first signal exits too, because an exception could abort an extension module.

    Signals that the process ignored from the start stay ignored, as in background jobs of a shell.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._raised = self._told = False

    def __enter__(self) -> None:
        self.received, self._raised, self._told = None, False, False
        if threading.current_thread() is threading.main_thread():
            for number in _WORDS:
                if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                    self._before[number] = signal.signal(number, self._receive)

    def __exit__(self, *_: object) -> None:
        if self.received is None:  # else keep the handlers, so that no traceback appears at exit
            for number in list(self._before):
                signal.signal(number, self._before.pop(number))

    def tell(self, hints: Iterable[object]) -> int:
        """Print one line about an interruption. Returns the exit code."""
        number = self.received or signal.SIGINT
        self._told = True
        if not launched_rank():  # else rank 0 tells it
            say("; ".join([f"nas: {_WORDS[number]}", *map(str, hints)]), error=True)
        return 128 + number

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or signal.Signals(number)
        if self._raised or _importing(frame):
            if not self._told:
                _write(_WORDS[self.received])
            os._exit(128 + self.received)
        self._raised = True
        raise KeyboardInterrupt


def _importing(frame: FrameType | None) -> bool:
    """Return whether an import is running."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _write(text: str) -> None:
    with suppress(OSError):  # the signal may have interrupted `print`
        os.write(sys.stderr.fileno(), f"nas: {text}\n".encode())


handler = Interrupts()
"""The handler of this process."""
