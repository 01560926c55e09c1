"""The memory of the machine, and that of containers in made-up folders of their control group."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas.cost.system_memory import available_memory, total_memory

MIB = 2**20
PHYSICAL = total_memory(Path("/nowhere"))
LIMITED = {
    "memory.max": f"{64 * MIB}\n",
    "memory.current": f"{40 * MIB}\n",
    "memory.stat": f"anon {20 * MIB}\nactive_file {4 * MIB}\ninactive_file {16 * MIB}\n",
}


def written(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "total", "available"),
    [
        ({}, PHYSICAL, 90 * MIB),
        ({**LIMITED, "memory.max": "max\n"}, PHYSICAL, 90 * MIB),
        (LIMITED, 64 * MIB, 40 * MIB),
        ({**LIMITED, "memory.current": f"{80 * MIB}\n", "memory.stat": ""}, 64 * MIB, 0),
        ({**LIMITED, "memory.max": f"{256 * MIB}\n"}, 256 * MIB, 90 * MIB),
        ({**LIMITED, "memory.max": f"{2**60}\n"}, PHYSICAL, 90 * MIB),
        (
            {
                "memory/memory.limit_in_bytes": f"{64 * MIB}\n",
                "memory/memory.usage_in_bytes": f"{40 * MIB}\n",
                "memory/memory.stat": f"inactive_file {MIB}\ntotal_inactive_file {16 * MIB}\n",
            },
            64 * MIB,
            40 * MIB,
        ),
    ],
    ids=["none", "no-limit", "limit", "exceeded", "wide", "beyond", "version-1"],
)
def test_what_a_container_may_take(files: dict[str, str], total: int, available: int, tmp_path: Path) -> None:
    """Cached files that are not in use are no used memory."""
    cgroup = written(tmp_path / "cgroup", files)
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: {2**40} kB\nMemAvailable:   {90 * 1024} kB\n")
    assert (total_memory(cgroup), available_memory(cgroup, meminfo)) == (total, available)


def test_the_memory_of_this_machine() -> None:
    assert 2**28 < total_memory() <= PHYSICAL < 2**44
    assert 0 < available_memory() <= total_memory()
    nowhere = Path("/nowhere")
    assert available_memory(nowhere, nowhere) == PHYSICAL, "where the system does not say"
