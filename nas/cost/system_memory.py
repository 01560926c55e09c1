"""The memory of this machine, or of the container that the process runs in: how much there is, how much is left."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

CGROUP, MEMINFO = Path("/sys/fs/cgroup"), Path("/proc/meminfo")
"""Where Linux shows the limits of a container, and the memory of the machine."""


class _Files(NamedTuple):
    """Files of a version of control groups: the limit, the bytes used, and the field of cached files to subtract."""

    limit: str
    used: str
    statistics: str
    inactive: str


_VERSIONS = (
    _Files("memory.max", "memory.current", "memory.stat", "inactive_file"),
    _Files("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)


def total_memory(cgroup: Path = CGROUP) -> int:
    """Return the bytes of memory that processes may take together: those of the machine, or the container's limit.

    Args:
        cgroup: the folder of the control group.
    """
    limits = (_number(cgroup / files.limit, r"^(\d+)") for files in _VERSIONS)
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([physical, *(limit for limit in limits if limit is not None)])


def available_memory(cgroup: Path = CGROUP, meminfo: Path = MEMINFO) -> int:
    """Return the bytes of memory that a new process may take now.

    Files that the system has cached and does not use are counted as available, since it frees them if memory is short.

    Args:
        cgroup: the folder of the control group.
        meminfo: the file about the memory of the machine.
    """
    found = [total_memory(cgroup)]
    if (free := _number(meminfo, r"^MemAvailable:\s+(\d+) kB")) is not None:
        found.append(free * 1024)
    for files in _VERSIONS:
        limit, used = _number(cgroup / files.limit, r"^(\d+)"), _number(cgroup / files.used, r"^(\d+)")
        if limit is not None and used is not None:
            cached = _number(cgroup / files.statistics, rf"^{files.inactive} (\d+)") or 0
            found.append(max(limit - used + min(cached, used), 0))
    return min(found)


def _number(path: Path, pattern: str) -> int | None:
    """The number in a file of the system; None if there is none, such as for the limit `max`."""
    try:
        text = path.read_text(encoding="ascii")
    except OSError:
        return None
    match = re.search(pattern, text, re.MULTILINE)
    return None if match is None else int(match[1])
