from __future__ import annotations

import ctypes
import json
import os
import platform
import subprocess
import sys

import pytest
import torch

from nas.kernels.freed_memory import fill_heap, heap_size, memory_kept

PROGRAM = '''
import json
import resource
from pathlib import Path

import torch

from nas.kernels.freed_memory import memory_kept
from tmics_space.network import Restored
from tmics_space.predict import derain


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def pages(megabytes, times):
    """How many pages are asked for by the last of several blocks, each freed before the next."""
    for _ in range(times):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.empty(megabytes * 2**20, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


found = {"before": pages(40, 3)}
with memory_kept():
    with memory_kept():
        pages(40, 1)
    found["inside"] = pages(40, 30)  # what else is allocated first fills gaps between them
    held = resident()
found["returned"] = (held - resident()) / 2**20
found["after"] = pages(200, 3)


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        found["computing"] = pages(40, 10)
        return Restored(x[:, 0], x[:, 0], x[:, 0], x[:, 0, :1], self.weight)


for _ in derain(Network().eval(), iter([torch.zeros(3, 16, 16, dtype=torch.uint8)] * 2), frames=1):
    found["yielded"] = pages(200, 3)
print(json.dumps(found))
'''


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no `mallopt`")
def test_memory_is_kept_inside_of_the_context_alone() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True, env=environment)
    found = json.loads(done.stdout)
    for inside in ("inside", "computing"):
        for outside in ("before", "after", "yielded"):
            assert found[inside] < found[outside] / 8, found
    assert found["returned"] > 39, found


@pytest.mark.skipif(heap_size() is None, reason="this C library does not tell the size of its heap")
def test_a_full_heap_grows_by_what_is_allocated() -> None:
    def grown() -> float:
        before, block = heap_size(), torch.empty(2**26, dtype=torch.uint8)
        after = heap_size()
        assert before is not None
        assert after is not None
        return (after - before) / len(block)

    with memory_kept():
        blocks = [torch.empty(2**24, dtype=torch.uint8) for _ in range(16)]
        kept = torch.empty(2**24, dtype=torch.uint8)  # the free memory below it stays in the heap
        del blocks
        assert grown() == 0
        filled = fill_heap()
        assert grown() == pytest.approx(1, rel=0.02)
        del filled
        assert grown() == 0
    assert len(kept) == 2**24


class Library:
    """Stands for the C library, and records what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, ...]] = []

    def mallopt(self, parameter: int, value: int) -> None:
        self.calls.append((parameter, value))

    def malloc_trim(self, left: int) -> None:
        self.calls.append((left,))


@pytest.mark.parametrize(
    ("environment", "trim", "count"),
    [
        ({}, 128 * 1024, 65536),
        ({"MALLOC_TRIM_THRESHOLD_": "0x100000"}, 2**20, 65536),
        ({"MALLOC_MMAP_MAX_": "7", "MALLOC_TRIM_THRESHOLD_": str(2**40)}, 2**31 - 1, 7),
        ({"MALLOC_MMAP_MAX_": "many"}, 128 * 1024, 65536),
    ],
)
def test_afterwards_the_environment_decides_again(
    environment: dict[str, str], trim: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Library()
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(KeyError), memory_kept(), memory_kept():
        raise KeyError
    inside = [(-4, 0), (-1, -1)]  # the numbers of M_MMAP_MAX and M_TRIM_THRESHOLD in malloc.h
    assert library.calls == [*inside, *inside, (-1, trim), (-4, count), (0,)]
