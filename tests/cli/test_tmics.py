"""The whole path of a user on TMICS and frames, tiny ones: search, derive, draw, retrain, evaluate, predict."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nas.files import dump_yaml
from nas.genotype.file import Genotype
from nas.run import checkpoint
from nas.run.folder import read_records
from nas.run.retraining import load_network

Nas = Callable[..., Any]

SMALL = {"channels": 2, "dna_cells": 1, "cna_cells": 1, "layers": 1, "flow": {"name": "pyramid", "width": 4}}


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films of 7 frames of a pattern that moves, a folder each."""
    root = tmp_path_factory.mktemp("films")
    y, x = np.mgrid[:36, :44]
    for film in range(4):
        (root / f"film{film}").mkdir()
        for frame in range(7):
            pattern = 128 + 80 * np.sin((x + frame) / (3 + film)) * np.cos(y / 5)
            picture = np.stack([pattern, pattern[::-1], 255 - pattern], -1).astype(np.uint8)
            Image.fromarray(picture).save(root / f"film{film}" / f"{frame}.png")
    return root


@pytest.fixture(scope="module")
def config(frames: Path) -> Path:
    def optimized(parameters: list[str], loss: str, split: str, **more: object) -> dict[str, object]:
        optimizer = {"name": "adam", "lr": 1e-3}
        return {"parameters": parameters, "loss": loss, "split": split, "optimizer": optimizer, **more}

    terms = [{"name": "entropy", "weight": 0.01}, {"name": "expected_cost", "weight": 0.05}]
    films = {f"film{i}": str(frames / f"film{i}") for i in range(4)}
    data = {
        "space": "tmics",
        "options": SMALL,
        "task": {
            "name": "derain",
            "train": {"kind": "films", "films": {name: films[name] for name in ("film0", "film1", "film2")}},
            "test": {"kind": "films", "films": {"film3": films["film3"]}},
            "by_film": False,
            "crop": 16,
            "batch": 1,
        },
        "search": {
            "steps": 4,
            "epochs": 2,
            "levels": {
                "lower": optimized(["network.*", "!network.averaging.*"], "lower", "train"),
                "middle": optimized(["network.averaging.*"], "fused", "middle", period=2),
                "upper": optimized(
                    ["arch.*"],
                    "fused",
                    "val",
                    period=2,
                    hypergradient={"middle": {"name": "unrolled"}},
                    regularizers=terms,
                ),
            },
        },
        "retrain": {
            "stages": {
                "backbone": {"steps": 2, "level": optimized(["*", "!averaging.*"], "lower", "all")},
                "averaging": {"steps": 2, "level": optimized(["averaging.*"], "fused", "all", mode="eval")},
            }
        },
    }
    path = frames / "tiny.yaml"
    path.write_text(dump_yaml(data), encoding="utf-8")
    return path


def test_from_frames_to_a_derained_clip(nas: Nas, config: Path, frames: Path, tmp_path: Path) -> None:
    run, net = tmp_path / "search", tmp_path / "net"
    assert nas("search", config, "--out", run, "--quiet").code == 0
    genotype = Genotype.load(run / "genotype.yaml")
    assert nas("derive", run).out == (run / "genotype.yaml").read_text()
    assert f"cell/1: {genotype.choices['cell/1']}" in nas("draw", run).out
    upper = [record for record in read_records(run) if record.get("level") == "upper"]
    assert [record["step"] for record in upper] == [2, 4]
    assert upper[0]["expected_cost"] == pytest.approx(0.05)

    result = nas("retrain", run, "--inherit", "--out", net, "--quiet")
    assert (result.code, result.err) == (0, "")
    assert re.search(r"^psnr +\d+\.\d+$", result.out, re.M)
    assert "\npsnr, ssim: MATLAB Y" in result.out  # how the scores were taken
    assert "psnr, ssim: MATLAB Y" in (net / "report.html").read_text()
    assert nas("evaluate", net).out.split("\n")[1:] == [*result.out.split("\n")[1:-2], ""]

    shown = tmp_path / "shown"
    result = nas("predict", frames / "film3", shown, "--model", net, "--tile", "64", "--quiet")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(f"{shown}: frames 7, seconds ")
    assert sorted(path.name for path in shown.iterdir()) == [f"{frame}.png" for frame in range(7)]
    network = load_network(net)
    window = torch.stack([torch.from_numpy(picture(frames / "film3" / f"{frame}.png")) for frame in range(1, 6)])
    with torch.no_grad():
        output = network(window.permute(0, 3, 1, 2)[None].float() / 255).output[0]
    expected = (output.clamp(0, 1) * 255).round().permute(1, 2, 0).byte().numpy()
    assert np.array_equal(picture(shown / "3.png"), expected)

    narrow = tmp_path / "narrow"
    assert nas("predict", frames / "film3", narrow, "--model", net, "--bfloat16", "--quiet").code == 0
    difference = picture(narrow / "3.png").astype(int) - expected
    assert 0 < np.abs(difference).max() <= 2


def test_the_second_stage_trains_the_averaging_alone(nas: Nas, config: Path, tmp_path: Path) -> None:
    """Bit for bit, batch norm's statistics included; the first stage is one of two runs that differ in the second."""
    genotype = Genotype(
        space="tmics", options=SMALL, choices={"alignment": "ofm", "frequency": "gf2", "cell/1": "residual_3x3"}
    )
    genotype.save(tmp_path / "mine.yaml")
    weights = []
    for steps in (1, 3):
        out = tmp_path / str(steps)
        override = f"retrain.stages.averaging.steps={steps}"
        command = ["retrain", tmp_path / "mine.yaml", "--config", config, override, "--out", out, "--quiet"]
        assert nas(*command).code == 0
        weights.append(checkpoint.load_weights(out / "weights.safetensors"))
    assert any(name.endswith("running_var") for name in weights[0])
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]) == (not name.startswith("averaging.")), name


def picture(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.array(Image.open(path))
