from __future__ import annotations

import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import processes

pytest.importorskip("sklearn")

TOOL = Path(__file__).parents[2] / "tools" / "digits.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, TOOL, *arguments], capture_output=True, text=True, check=False)


def test_it_prints_every_accuracy_and_their_mean() -> None:
    done = run("--random", "2", "search.steps=2", "retrain.stages.all.steps=2", "options.channels=2", "options.nodes=1")
    ours, *others = (
        float(each) for each in re.findall(r"^(?:searched|random \d+) +[\d,]+ +([\d.]+)$", done.stdout, re.M)
    )
    summary = re.search(r"searched ([\d.]+) %, mean of 2 random cells ([\d.]+) %", done.stdout)
    assert summary is not None, done.stdout + done.stderr
    assert len(others) == 2
    assert float(summary[1]) == pytest.approx(ours, abs=0.01)
    assert float(summary[2]) == pytest.approx(statistics.fmean(others), abs=0.02)
    assert done.returncode == (0 if float(summary[1]) > float(summary[2]) else 1)


def test_bad_overrides_are_one_line(tmp_path: Path) -> None:
    errors = tmp_path / "errors"
    assert processes.finish(processes.program(str(TOOL), "search.stepz=2", errors=errors)) == 1
    assert re.fullmatch(r"error: .*stepz.*\n", errors.read_text())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_search_beats_the_mean_of_twenty_random_cells() -> None:
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\nrandom ") == 20
