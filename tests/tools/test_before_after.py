"""Crops before and after a model, in one picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

import nas
import shipping
from tmics_space.data import moving_texture, read_frames, write_frames


@pytest.fixture
def tool(load_tool: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    found = load_tool("before_after")
    monkeypatch.setattr(found, "SIDE", 12)
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shipping.tiny_run(tmp_path_factory.mktemp("before") / "run")


def test_rainy_crops_are_left_of_derained_ones(tool: ModuleType, run: Path, tmp_path: Path) -> None:
    clip = moving_texture(7, 24, 30)
    with write_frames(tmp_path / "rainy") as write:
        for frame in clip:
            write(frame)
    crops = [f"{tmp_path / 'rainy'}@{frame}@{top},3" for frame, top in ((5, 2), (0, 9), (6, 0))]
    given = ["--model", str(run), "--out", str(tmp_path / "new" / "out.png")]
    for crop in crops:
        given += ["--clip", crop]
    assert tool.main(given) == 0
    sheet = read_frames(tmp_path / "new" / "out.png")[0]
    step, across = 12 + tool.GAP, 2 * 12 + 3 * tool.GAP
    assert sheet.shape[1:] == (2 * step, 2 * across)
    for place, (frame, top) in zip(((0, 0), (0, across), (step, 0)), ((5, 2), (0, 9), (6, 0)), strict=True):
        y, x = place
        assert torch.equal(sheet[:, y : y + 12, x : x + 12], clip[frame][:, top : top + 12, 3:15])
    nas.predict(str(run), tmp_path / "rainy", tmp_path / "derained")
    right = sheet[:, :12, 12 + tool.GAP : 24 + tool.GAP]
    assert torch.equal(right, read_frames(tmp_path / "derained")[5][:, 2:14, 3:15])


def test_one_crop_is_a_picture_too(tool: ModuleType, run: Path, tmp_path: Path) -> None:
    clip = moving_texture(3, 24, 30)
    with write_frames(tmp_path / "rainy") as write:
        for frame in clip:
            write(frame)
    out = tmp_path / "out.png"
    assert tool.main(["--model", str(run), "--out", str(out), "--clip", f"{tmp_path / 'rainy'}@1@2,3"]) == 0
    sheet = read_frames(out)[0]
    assert sheet.shape[1:] == (12 + tool.GAP, 2 * 12 + 3 * tool.GAP)
    assert torch.equal(sheet[:, :12, :12], clip[1][:, 2:14, 3:15])


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        ("{}@7@0,0", "must have a frame 7, got 7 frames"),
        ("{}@1@90,0", "the corner 90,0 must be inside of the frame, got 24x30"),
        ("{}", "must be FILE@FRAME@TOP,LEFT"),
        ("{}@1@-1,0", "must be FILE@FRAME@TOP,LEFT"),
        ("{}/no.mp4@1@0,0", "no such"),
    ],
)
def test_a_wrong_crop_is_one_line(
    clip: str, message: str, tool: ModuleType, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with write_frames(tmp_path / "rainy") as write:
        for frame in moving_texture(7, 24, 30):
            write(frame)
    with pytest.raises(SystemExit) as left:
        tool.main(["--model", str(run), "--clip", clip.format(tmp_path / "rainy"), "--out", str(tmp_path / "out.png")])
    assert message in f"{left.value}{capsys.readouterr().err}"


def test_the_picture_of_the_page_is_small(tool: ModuleType) -> None:
    assert tool.PICTURE.stat().st_size < 150_000
    with Image.open(tool.PICTURE) as picture:
        assert picture.width > 4 * 200


def test_a_clip_of_ones_own_does_not_replace_the_picture_of_the_documentation(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        tool.main(["--clip", f"{tmp_path}@1@0,0"])
    assert "--clip needs --out" in capsys.readouterr().err
