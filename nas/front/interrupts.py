"""Signals during a run: the first one ends it after the step at hand, a second one at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Hold back the first SIGINT or SIGTERM; yields a function that says whether one came.

    The block should then save what it has and raise `KeyboardInterrupt`. When it ends so, or normally, the signal goes
    to the handler that was installed before; after a second signal it goes there at once. Signals without a handler in
    Python keep their effect, as do all signals outside of the main thread.
    """
    received: list[int] = []
    handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
    before = dict(handlers)

    def restore() -> None:
        while before:
            signal.signal(*before.popitem())

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            restore()
            handlers[received[0]](received[0], frame)
        elif sys.stderr is not None and sys.stderr.isatty():
            with suppress(OSError):  # not by `print`, which the signal may have interrupted
                os.write(sys.stderr.fileno(), b"nas: stopping after this step; interrupt again to stop at once\n")

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if callable(handler):
                before[number] = handlers[number] = handler
                signal.signal(number, receive)
    try:
        yield lambda: bool(received)
    except KeyboardInterrupt:
        restore()
        if len(received) == 1:
            handlers[received[0]](received[0], None)
        raise
    finally:
        restore()
    if len(received) == 1:
        handlers[received[0]](received[0], None)
