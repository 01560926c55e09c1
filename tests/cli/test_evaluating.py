"""`nas evaluate` on files; on runs it is tested with the other commands that run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tmics_space.data.writer import write_frames

Nas = Callable[..., Any]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey frames: the truth, one method 10 levels above it, and one 20 levels."""
    root = tmp_path_factory.mktemp("clips")
    for name, above in (("truth", 0), ("near", 10), ("far", 20)):
        with write_frames(root / name) as write:
            for frame in range(3):
                write(torch.full((3, 16, 16), 100 + frame + above, dtype=torch.uint8))
    return root


def test_outputs_of_several_methods_against_the_truth(nas: Nas, clips: Path, tmp_path: Path) -> None:
    page = tmp_path / "page"
    outputs = ["--outputs", f"ours={clips / 'near'}", "--outputs", clips / "far"]
    result = nas("evaluate", "protocol=rgb", "temporal=false", *outputs, "--truth", clips / "truth", "--out", page)
    assert (result.code, result.err) == (0, "")
    lines = [line.split() for line in result.out.splitlines()]
    assert ["ours", "28.13", "0.9956"] in [line[:3] for line in lines], "20 log10(255 / 10), and 2 a b / (a a + b b)"
    assert ["far", "22.11"] in [line[:2] for line in lines]
    assert "protocol 'rgb'" in result.out
    assert lines[-1] == ["page:", str(page / "evaluation.html")]
    assert sorted(path.name for path in page.iterdir()) == ["clips.csv", "evaluation.html", "frames.csv"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "needs the folder of a retraining, or --truth"),
        (["--outputs", "near"], "needs the folder of a retraining, or --truth"),
        (["runs/x", "--truth", "truth", "--outputs", "near"], "--model runs/x"),
        (["--truth", "truth"], "got neither"),
        (["--truth", "truth", "--outputs", "near", "--outputs", "./near"], "got 'near' twice"),
        (["--truth", "truth", "--model", "nowhere", "--rainy", "far"], "nowhere"),
        (["--truth", "truth", "--outputs", "near", "--out", "far"], "far: must be a new or empty folder"),
        (["--truth", "missing.mp4", "--outputs", "near"], "missing.mp4: no such file"),
    ],
)
def test_what_cannot_be_evaluated(
    refused: Callable[..., str], clips: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(clips)
    assert message in refused("evaluate", *arguments)
    assert not (clips / "evaluation").exists()
