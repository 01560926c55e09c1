from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no `mallopt`")

PROGRAM = """
import json
import resource
from pathlib import Path

import torch

from nas.allocator import memory_kept

MEGABYTES = 64


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(MEGABYTES * 2**20, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


found = {"before": [faults(), faults()][1]}
with memory_kept():
    with memory_kept():
        faults()
    found["inside"] = faults()
    held = resident()
found["given back"] = (held - resident()) / 2**20
found["after"] = [faults(), faults()][1]
print(json.dumps(found))
"""


def test_a_block_is_used_again_and_given_back_at_the_end() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found["inside"] < found["before"] / 8, found
    assert found["inside"] < found["after"] / 8, found
    assert found["given back"] > 60, found
