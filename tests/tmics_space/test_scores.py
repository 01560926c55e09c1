from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.errors import ConfigError, NASError
from nas.front.scored import evaluate_files
from nas.run.scoring import Files
from tmics_space.data import moving_texture, rain
from tmics_space.data.writer import write_frames
from tmics_space.metrics.protocol import evaluate_clip
from tmics_space.network import Restored
from tmics_space.scores import score_derained, worst_window


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of 12 frames: true, rainy, and by two methods, of which `bad` spoils frame 5 of the second clip."""
    root = tmp_path_factory.mktemp("scored")
    for seed, name in enumerate(("one", "two")):
        truth = moving_texture(12, 32, 40, seed)
        rainy = rain(truth, "ntu", seed)
        good = ((truth.float() * 3 + rainy) / 4).round().byte()
        bad = ((truth.float() + rainy) / 2).round().byte()
        if name == "two":
            bad[5] = 255 - bad[5]
        for kind, frames in {"truth": truth, "rainy": rainy, "good": good, "bad": bad}.items():
            with write_frames(root / kind / name) as write:
                for frame in frames:
                    write(frame)
    return root


def test_methods_are_scored_side_by_side_with_the_worst_frame_first(folder: Path, tmp_path: Path) -> None:
    outputs = {name: folder / name for name in ("bad", "good")}
    options = {"protocol": "nturain", "temporal": False}
    found = evaluate_files(folder / "truth", outputs, source=folder / "rainy", out=tmp_path / "out", options=options)
    assert list(found.totals) == ["rainy", "bad", "good"]
    assert found.totals["rainy"]["psnr"] < found.totals["good"]["psnr"]
    truth = moving_texture(12, 32, 40, 1)
    good = ((truth.float() * 3 + rain(truth, "ntu", 1)) / 4).round()
    expected = evaluate_clip("nturain", good / 255, truth.float() / 255)
    assert found.parts["two"]["good"]["psnr"] == pytest.approx(expected.psnr, abs=1e-5)
    assert found.parts["two"]["good"]["ssim"] == pytest.approx(expected.ssim, abs=1e-6)
    assert (found.items[0].part, found.items[0].item, found.judged) == ("two", 6, "bad")
    assert found.worst[0].title == "two, frame 6"
    shown, errors = found.worst[0].rows
    assert [picture.title.split(",")[0] for picture in shown] == ["rainy", "bad", "good", "truth"]
    assert torch.equal(shown[-1].pixels, truth[5])
    assert [picture.title.split(",")[0] for picture in errors] == ["error of rainy", "error of bad", "error of good"]
    for exhibit, seed in zip(found.exhibits["Temporal profiles"], (0, 1), strict=True):
        profile = exhibit.rows[0][-1]
        column = moving_texture(12, 32, 40, seed)[..., 20].permute(1, 2, 0)
        assert profile.title == "truth"
        assert torch.equal(profile.pixels[..., ::12], column), "rows by frames"

    with (tmp_path / "out" / "frames.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 8 * 3, "the protocol drops two frames at each end"
    of_good = [row for row in rows if (row["clip"], row["method"]) == ("two", "good")]
    assert [int(row["frame"]) for row in of_good] == [*range(3, 11)]
    assert [float(row["psnr"]) for row in of_good] == pytest.approx(expected.frame_psnr, abs=1e-5)
    with (tmp_path / "out" / "clips.csv").open() as file:
        assert [(row["clip"], row["method"]) for row in csv.DictReader(file)][:3] == [
            ("one", "rainy"),
            ("one", "bad"),
            ("one", "good"),
        ]


def test_the_detail_is_where_the_error_is_greatest() -> None:
    truth = torch.zeros(1, 30, 40)
    output = truth.clone()
    output[0, 12, 33], output[0, 14, 35], output[0, 2, 2] = 0.5, 0.5, 0.6
    _, rows, columns = worst_window(output, truth, 5)
    assert rows.start <= 12 < 14 < rows.stop == rows.start + 5
    assert columns.start <= 33 < 35 < columns.stop == columns.start + 5
    assert worst_window(output, truth, 99) == (slice(None), slice(0, 30), slice(0, 40))


def test_frames_that_a_peer_lacks_are_scored_for_nobody(folder: Path, tmp_path: Path) -> None:
    with write_frames(tmp_path / "peer") as write:
        for number, frame in enumerate(moving_texture(12, 32, 40)[3:], 4):
            write(frame, f"{number:05d}")
    files = Files(folder / "truth" / "one", {"peer": tmp_path / "peer", "good": folder / "good" / "one"})
    found = score_derained(files, protocol="tmics")
    assert sorted({item.item for item in found.items}) == [*range(4, 11)], "the ends are those of the truth"
    assert found.parts["one"]["peer"]["psnr"] == float("inf")
    assert len(found.skipped) == 3
    assert "off_rain" not in found.totals["good"]
    assert found.totals["peer"]["warping_error"] < found.totals["good"]["warping_error"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"outputs": {"rainy": "good"}}, "must not be 'rainy'"),
        ({"outputs": {"good": "good"}, "options": {"protocol": "nturian"}}, "did you mean 'nturain'"),
        ({"outputs": {"good": "good"}, "options": {"protocl": "y"}}, r"no 'protocl' \(did you mean 'protocol'"),
        ({"outputs": {"good": "good"}, "options": {"temporal": "yes"}}, "temporal"),
        ({"outputs": {"good": "none"}}, "none"),
        ({"outputs": {"a/b": "good"}}, "got 'a/b'"),
        ({}, "got neither"),
        ({"outputs": {"good": "good"}, "task": "classification"}, "Classification has no class method score_files"),
        ({"outputs": {"good": "good"}, "task": "derian"}, "did you mean 'derain'"),
    ],
)
def test_what_cannot_be_scored(folder: Path, tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    outputs = {name: folder / path for name, path in arguments.pop("outputs", {}).items()}
    with pytest.raises(NASError, match=message):
        evaluate_files(folder / "truth", outputs, out=tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_a_short_clip_is_named(tmp_path: Path) -> None:
    for name in ("truth", "ours"):
        with write_frames(tmp_path / name) as write:
            write(moving_texture(1, 16, 16)[0])
    files = Files(tmp_path / "truth", {"ours": tmp_path / "ours"})
    with pytest.raises(ConfigError, match=r"truth: .* at least 5 frames .* got 1"):
        score_derained(files, protocol="tmics")


class Copy(torch.nn.Module):
    """The frame in the middle of the window, unchanged."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, frames: torch.Tensor) -> Restored:
        middle = frames[:, 2]
        return Restored(middle, middle, middle, torch.ones(len(frames), 1, 1, 1), self.unused.sum())


@pytest.mark.parametrize("clip", ["", "one"])
def test_a_network_writes_what_is_scored(folder: Path, tmp_path: Path, clip: str) -> None:
    told: list[tuple[int, int]] = []
    networks = {"net": Copy().eval()}
    files = Files(folder / "truth" / clip, {}, folder / "rainy" / clip, networks, tmp_path)
    found = score_derained(files, temporal=False, progress=lambda *done: told.append(done))
    assert found.totals["net"] == found.totals["rainy"]
    frames = 12 if clip else 24
    assert told == [(n, 2 * frames) for n in range(1, 2 * frames + 1)]
    written = tmp_path / "net" / ("" if clip else "two")
    assert len(list(written.iterdir())) == 12
    without = files._replace(source=None, folder=tmp_path / "other")
    with pytest.raises(ConfigError, match="--rainy"):
        score_derained(without)


@pytest.mark.parametrize("clips", [["a.x"], ["a.x", "b"]])
def test_names_with_a_dot_and_clips_that_the_source_lacks(tmp_path: Path, clips: list[str]) -> None:
    texture = moving_texture(3, 16, 16)
    for path in [*(tmp_path / "truth" / clip for clip in clips), tmp_path / "rainy" / "a.x"]:
        with write_frames(path, folder=True) as write:
            for frame in texture:
                write(frame)
    files = Files(tmp_path / "truth", {}, tmp_path / "rainy", {"v1.png": Copy().eval()}, tmp_path / "out")
    found = score_derained(files, temporal=False)
    assert [*found.parts] == ["a.x"]
    assert found.totals["v1.png"]["psnr"] == float("inf")
    written = tmp_path / "out" / "v1.png" / ("" if len(clips) == 1 else "a.x")
    assert len(list(written.iterdir())) == 3
