"""Batches are the same by a thread or without one; the thread works ahead, and its errors arrive in order."""

from __future__ import annotations

import threading
import time

import pytest

from nas.errors import ConfigError
from nas.multilevel.prefetching import Batches


class Made:
    """Makes batches that say what they are, and notes where it did."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.keys, self.threads = seconds, list[tuple[str, int]](), set[str]()

    def __call__(self, split: str, index: int) -> str:
        time.sleep(self.seconds)
        self.keys.append((split, index))
        self.threads.add(threading.current_thread().name)
        if index == 3:
            raise ConfigError("no batch 3")
        return f"{split} {index}"


@pytest.mark.parametrize("ahead", [False, True])
def test_the_last_batches_are_kept_and_each_is_made_once(ahead: bool) -> None:
    made = Made()
    batches = Batches(made, str.upper, 2, ahead=ahead)
    assert [batches("a", i) for i in (0, 1, 0, 2, 0, 1)] == ["A 0", "A 1", "A 0", "A 2", "A 0", "A 1"]
    assert made.keys == [("a", i) for i in (0, 1, 2, 1)], "batch 1 was read longest ago when batch 2 came"
    batches.clear()
    assert batches("a", 1) == "A 1"
    assert len(made.keys) == 5
    assert (made.threads == {threading.current_thread().name}) != ahead


def test_what_is_prepared_is_made_meanwhile() -> None:
    made = Made(0.05)
    batches = Batches(made, str, 4, ahead=True)
    batches.prepare([("a", 0), ("b", 0), ("a", 0)])
    time.sleep(0.3)
    assert made.keys == [("a", 0), ("b", 0)]
    assert [batches("b", 0), batches("a", 0)] == ["b 0", "a 0"]
    assert batches.waited < 0.04
    batches("c", 0)
    assert batches.waited > 0.04


def test_without_a_thread_nothing_is_prepared() -> None:
    made = Made()
    Batches(made, str, 1).prepare([("a", 0)])
    assert made.keys == []


def test_an_error_is_raised_where_the_batch_is_read() -> None:
    batches = Batches(Made(), str, 4, ahead=True)
    batches.prepare([("a", 2), ("a", 3)])
    assert batches("a", 2) == "a 2"
    with pytest.raises(ConfigError, match="batch 3"):
        batches("a", 3)
