"""The programs in tools/ run from beginning to end, at a small size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

TOOLS = Path(__file__).parents[2] / "tools"
pytestmark = pytest.mark.slow


def run(tool: str, *arguments: object, code: int = 0) -> str:
    """What a tool prints."""
    command = [sys.executable, TOOLS / tool, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_demo_and_its_comparison(tmp_path: Path) -> None:
    out, doc = tmp_path / "out", tmp_path / "demo.md"
    printed = run("demo_reference.py", "--quick", "--seeds", 0, "--out", out, "--doc", doc)
    assert "| seed | rainy | temporal median |" in doc.read_text()
    assert "dB over rainy" in printed
    demo = out / "seed-0"
    scores = json.loads((demo / "scores.json").read_text())["scores"]
    assert scores["temporal median"]["psnr"] < scores["rainy"]["psnr"], "the camera moves"
    for made in ("report.md", "before-after.png", "before-after.mp4", "genotype.svg", "network/weights.safetensors"):
        assert (demo / made).stat().st_size > 0, made


def test_a_demo_replaces_no_other_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    assert "holds something that is no demo's" in run("demo.py", "--quick", "--out", tmp_path, code=1)
    assert (tmp_path / "mine").exists()


def test_pretraining_a_flow(tmp_path: Path) -> None:
    out = tmp_path / "flow.safetensors"
    size = ("--width", 4, "--levels", 2, "--steps", 3, "--crop", 32, "--size", 48, 84)
    assert "parameters" in run("pretrain_flow.py", "bundled:carphone", "--out", out, *size)
    assert out.stat().st_size > 0
    refused = run("pretrain_flow.py", "nowhere.mp4", "--out", out, *size, code=1)
    assert refused.startswith("nowhere.mp4: no such folder or file")


def test_the_costs_of_hypergradients() -> None:
    small = ("--channels", 4, "--cells", 2, "--batch", 2, "--rounds", 1)
    printed = run("bench_hypergradient.py", *small, "--only", "gauss_newton", "--memory", "checkpoint")
    assert "4 channels, 2 cells, batch 2, plain, memory checkpoint, float32" in printed
    rows = {cells[1].strip(): cells for line in printed.splitlines() if len(cells := line.split("│")) > 3}
    forwards = {name: int(cells[2]) for name, cells in rows.items()}
    assert forwards == {"first_order": 2, "gauss_newton": 3, "gauss_newton, reuse": 2}


def test_the_gain_of_the_plan() -> None:
    printed = run("bench.py", "--only", "NAS-Bench-201, first order", "--rounds", 1, "--threads", 1)
    rows = {cells[1].strip(): cells for line in printed.splitlines() if len(cells := line.split("│")) > 3}
    assert float(rows["planned"][3].split()[0]) > float(rows["plain"][3].split()[0]) == 1
    assert float(rows["planned"][5]) < float(rows["plain"][5]) == 1


@pytest.mark.slow
def test_relaxations_are_compared_with_a_path_and_with_softmax() -> None:
    printed = run("bench.py", "--only", "ratios", "--rounds", 1)
    rows = {cells[2].strip(): cells for line in printed.splitlines() if len(cells := line.split("│")) > 4}
    assert 2 < float(rows["uniform_path, fair: true"][3].split()[0]) < 10, "five paths"
    assert 1.1 < float(rows["binary_gates, two paths"][3].split()[0]) < 3
    assert float(rows["softmax, partial_channels, k: 4"][3].split()[0]) < 0.8


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_cuda_device_it_is_said() -> None:
    assert "there is no CUDA device here" in run("bench_cuda.py", code=1)
