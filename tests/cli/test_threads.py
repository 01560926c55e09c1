"""Threads of a command sleep soon when they wait; a program that imports the package decides for itself."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from nas.cli.threads import SPINS, limit_spinning

COMMAND = """
import os, sys

class Torch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print("torch is imported with", os.environ.get("GOMP_SPINCOUNT"))
            sys.meta_path.remove(self)

sys.meta_path.insert(0, Torch())
"""
"""Tells what libgomp reads when torch loads it."""


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [({}, SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)  # fmt: skip
def test_what_the_user_chose_stays(
    chosen: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    limit_spinning()
    assert os.environ.get("GOMP_SPINCOUNT") == expected


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("import nas; nas.find_space('digits').sample; import torch", "None"),
        ("import nas.cli; sys.argv = ['nas', 'spaces']; nas.cli.main()", SPINS),
    ],
)
def test_a_command_decides_before_torch_is_imported_and_a_library_never(program: str, expected: str) -> None:
    environment = {name: value for name, value in os.environ.items() if "OMP_WAIT" not in name and "GOMP" not in name}
    command = [sys.executable, "-c", COMMAND + program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"torch is imported with {expected}\n")
