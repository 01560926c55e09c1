"""The batches of levels: kept while levels read them again, and made one step ahead by a thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

Key = tuple[str, int]
"""Split and index."""


class Batches:
    """Batches by split and index; those that were read last are kept.

    Which batch has an index depends on the task alone, never on when it is made. So nothing needs to be saved.

    Args:
        make: makes a batch, as a function of (split, index).
        place: moves it to the device.
        kept: the number of batches that are kept.
        ahead: whether a thread makes all batches, so that `prepare` can start them early.
    """

    def __init__(
        self, make: Callable[[str, int], Any], place: Callable[[Any], Any], kept: int, *, ahead: bool = False
    ) -> None:
        self._make, self._place, self._size = make, place, kept
        self._kept: dict[Key, Any] = {}
        self._started: dict[Key, Future[Any]] = {}
        self._thread = ThreadPoolExecutor(1, "batches") if ahead else None
        self.waited = 0.0
        """Seconds that were spent waiting for batches, or making them."""

    def __call__(self, split: str, index: int) -> Any:
        """Return a batch on the device; raises what making it raises."""
        key = split, index
        if key in self._kept:
            self._kept[key] = self._kept.pop(key)  # the last one again
            return self._kept[key]
        begun = time.perf_counter()
        self.prepare([key])
        batch = self._make(*key) if self._thread is None else self._started.pop(key).result()
        self.waited += time.perf_counter() - begun
        self._kept[key] = batch = self._place(batch)
        while len(self._kept) > self._size:
            del self._kept[next(iter(self._kept))]
        return batch

    def prepare(self, keys: Iterable[Key]) -> None:
        """Let the thread make batches that will be read soon, in this order."""
        if self._thread is not None:
            for key in keys:
                if key not in self._kept and key not in self._started:
                    self._started[key] = self._thread.submit(self._make, *key)

    def clear(self) -> None:
        """Forget all batches."""
        self._kept.clear()
        for future in self._started.values():
            future.cancel()
        self._started.clear()
