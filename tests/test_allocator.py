from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

PROGRAM = '''
import json
import resource
from pathlib import Path

import torch

from nas.allocator import memory_kept


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
found["given back"] = (held - resident()) / 2**20
found["after"] = pages(1000, 3)
print(json.dumps(found))
'''


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no `mallopt`")
def test_a_block_is_used_again_and_given_back_at_the_end() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found["inside"] < found["before"] / 8, found
    assert found["inside"] < found["after"] / 8, found
    assert found["given back"] > 39, found
