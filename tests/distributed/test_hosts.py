"""A search on two hosts: two network namespaces that a cable of Linux joins, and `torchrun` in each of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nas.front.running import search
from nas.run.folder import read_versions
from ranked_runs import CONFIG, assert_equal_to_rounding

ROOT = Path(__file__).parents[2]
ADDRESSES = ("10.211.7.1", "10.211.7.2")
CABLE = "nascable"
"""The name of the network device in both namespaces."""


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """Two namespaces with an address each; skips where they cannot be made."""
    if shutil.which("ip") is None:
        pytest.skip("needs the command ip, of iproute2")
    names = [f"nas-{os.getpid()}-{number}" for number in range(2)]
    try:
        for name in names:
            ip("netns", "add", name)
        ends = ["name", CABLE, "netns", names[0], "type", "veth", "peer", "name", CABLE, "netns", names[1]]
        ip("link", "add", *ends)
        for name, address in zip(names, ADDRESSES, strict=True):
            ip("-n", name, "address", "add", f"{address}/30", "dev", CABLE)
            for device in ("lo", CABLE):
                ip("-n", name, "link", "set", device, "up")
        yield names
    except OSError as error:
        pytest.skip(f"no network namespaces: {error}")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_search_on_two_hosts_equals_one_on_one_rank(hosts: list[str], tmp_path: Path) -> None:
    (tmp_path / "toy.yaml").write_text(CONFIG.dump())
    path = f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'toys'}"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, "GLOO_SOCKET_IFNAME": CABLE}
    processes = []
    for number, (host, address) in enumerate(zip(hosts, ADDRESSES, strict=True)):
        command = ["ip", "netns", "exec", host, sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"]
        command += ["--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"{ADDRESSES[0]}:29400"]
        command += [
            "--rdzv-conf",
            f"is_host={int(number == 0)}",
            "--local-addr",
            address,
            "-m",
            "nas",
            "--import",
            "toy",
            "search",
            "toy.yaml",
            "--out",
            "run",
        ]
        processes.append(subprocess.Popen([*command, "--quiet"], cwd=tmp_path, env=environment))
    try:
        assert [process.wait(600) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    assert read_versions(tmp_path / "run").ranks == 2
    search(CONFIG, out=tmp_path / "one", progress=False)
    assert_equal_to_rounding(tmp_path / "run", tmp_path / "one")
