"""Systems without the modules `fcntl` and `resource`: commands work, and say once what they lack."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import toy

PROGRAM = """
import sys
sys.modules["fcntl"] = sys.modules["resource"] = None
from nas.cli import main
main()
"""


def run(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments), "--import", "toy"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_runs_and_studies_work_without_locks(tmp_path: Path) -> None:
    (tmp_path / "toy.py").symlink_to(Path(toy.__file__))
    short = ["search.steps=2", "search.epochs=1", "retrain.stages.backbone.steps=1", "retrain.stages.averaging.steps=1"]
    rate = "search.levels.upper.optimizer.lr=log(1e-4, 1e-1)"
    done = run("tune", toy.CONFIG, *short, rate, "--trials", 2, "--out", "tuned", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("warning: ") == done.stderr.count("'fcntl'") == 1
    assert "search 2/2 (100%)" in done.stdout
    assert " GB" not in done.stdout
    assert "best: trial" in done.stdout
