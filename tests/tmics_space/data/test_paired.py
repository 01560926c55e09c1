"""Paired data sets, on small trees laid out as they are downloaded."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from PIL import Image

from nas.errors import InvalidFileError
from tmics_space.data import (
    LAYOUTS,
    Layout,
    PairedDataset,
    load_pairs,
    moving_texture,
    paired_dataset,
    write_frames,
)
from tmics_space.data.layouts import Split

RAINY, CLEAN = 200, 50
"""red of the rainy and the clean images; their green is ten times the frame number, their blue the clip's"""


def save(path: Path, red: int, number: int = 0, clip: int = 0, size: tuple[int, int] = (9, 6)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (red, 10 * number, clip)).save(path, quality=100, subsampling=0)


def check(dataset: PairedDataset, names: list[str], numbers: Iterable[int]) -> None:
    """The clips are those, in order, with these frames, each beside its own ground truth."""
    assert [clip.name for clip in dataset.clips] == names
    for clip in dataset.clips:
        assert list(clip.numbers) == list(numbers)
        blue = set()
        for images, red in zip((frames[:] for frames in clip.load()), (RAINY, CLEAN), strict=True):
            assert (images[:, 0].int() - red).abs().max() <= 2
            assert [round(green / 10) for green in images[:, 1, 0, 0].tolist()] == list(numbers)
            blue |= {round(value / 20) for value in images[:, 2].flatten().tolist()}
        assert len(blue) == 1


@pytest.mark.parametrize(("layout", "kind"), [("rainsyn-light-a", "light"), ("rainsyn-complex-a", "heavy")])
@pytest.mark.parametrize("split", ["train", "test"])
def test_rainsyn_a(tmp_path: Path, layout: str, kind: str, split: str) -> None:
    for clip in (1, 2, 10):
        for number in range(1, 12):
            folder = tmp_path / f"frames_{kind}_{split}_JPEG" / str(clip)
            save(folder / f"rfc-{number}.jpg", RAINY, number, clip * 20)
            save(folder / f"gtc-{number}.jpg", CLEAN, number, clip * 20)
            save(folder / f"rf-{number}.jpg", 0)  # the luminance alone is not used
            save(folder / f"gt-{number}.jpg", 0)
    dataset = paired_dataset(tmp_path, layout, split)
    check(dataset, ["1", "2", "10"], range(1, 12))
    assert dataset.skipped == ()
    assert [part.shape for part in dataset.clips[0].load(3, 5)] == [(2, 3, 4, 8)] * 2  # 9x6, cut to a multiple of 4


@pytest.mark.parametrize(("layout", "kind"), [("rainsyn-light-b", "light"), ("rainsyn-complex-b", "heavy")])
@pytest.mark.parametrize("truth", ["gt", "processed"])
def test_rainsyn_b(tmp_path: Path, layout: str, kind: str, truth: str) -> None:
    root = tmp_path / f"video_rain_{kind}" / "train"
    for clip in (3, 10):
        for number in (8, 9, 10):
            save(root / "input" / str(clip) / f"{number}.png", RAINY, number, clip * 20)
            save(root / truth / str(clip) / f"{number}.png", CLEAN, number, clip * 20)
    (root / "input" / "28").mkdir()  # one folder of the published set is empty
    (root / truth / "28").mkdir()
    dataset = paired_dataset(tmp_path, layout, "train")
    check(dataset, ["3", "10"], (8, 9, 10))
    assert dataset.skipped == ("clip 28: no rainy frame",)


@pytest.mark.parametrize("split", ["train", "test"])
def test_rainsyn_c(tmp_path: Path, split: str) -> None:
    root = tmp_path / f"Video_rain_synthesis_{split}"
    for number in (0, 1, 2):  # frame 0 is below the layout's start
        save(root / "Rain" / "7" / f"{number}.png", RAINY, number)
        save(root / "GT" / "7" / f"{number}.png", CLEAN, number)
    check(paired_dataset(tmp_path, "rainsyn-c", split), ["7"], (1, 2))


def test_nturain(tmp_path: Path) -> None:
    train = tmp_path / "Dataset_Training_Synthetic"
    for number in (1, 2, 10):
        for version in ("01", "02"):
            save(train / f"t1_Rain_{version}" / f"{number:05d}.jpg", RAINY, number)
        save(train / "t1_GT" / f"{number:05d}.jpg", CLEAN, number)
    (train / "t1_GT" / "Thumbs.db").write_bytes(b"\0")
    dataset = paired_dataset(tmp_path, "nturain", "train")
    check(dataset, ["t1_01", "t1_02"], (1, 2, 10))
    assert {clip.film for clip in dataset.clips} == {"t1"}
    assert dataset.clips[0].truth == dataset.clips[1].truth
    test = tmp_path / "Dataset_Testing_Synthetic"
    for clip in ("a1", "b2", "b10"):
        for number in (0, 1):
            save(test / f"{clip}_Rain" / f"{number:05d}.jpg", RAINY, number)
            save(test / f"{clip}_GT" / f"{number:05d}.jpg", CLEAN, number)
            save(test / f"{clip}_spacCNN" / f"{number:05d}.jpg", 0)
    check(paired_dataset(tmp_path, "nturain", "test"), ["a1", "b2", "b10"], (0, 1))


def test_rainvid(tmp_path: Path) -> None:
    for number in (9, 10):
        save(tmp_path / "val" / "rainy" / "0001TP" / f"0001TP_{number:06d}.jpg", RAINY, number)
        save(tmp_path / "val" / "gt" / "0001TP" / f"0001TP_{number:06d}.jpg", CLEAN, number)
    check(paired_dataset(tmp_path, "rainvid", "val"), ["0001TP"], (9, 10))


@pytest.mark.parametrize(("split", "folder"), [("train", "."), ("test", "test")])
def test_vrds(tmp_path: Path, split: str, folder: str) -> None:
    for number in (0, 1, 2):
        save(tmp_path / folder / "lq" / "041" / f"{number:08d}.png", RAINY, number)
        save(tmp_path / folder / "gt" / "041" / f"{number:08d}.png", CLEAN, number)
    check(paired_dataset(tmp_path, "vrds", split), ["041"], (0, 1, 2))


@pytest.mark.parametrize(("split", "folder"), [("all", "."), ("train", "train"), ("test", "test")])
def test_pairs(tmp_path: Path, split: str, folder: str) -> None:
    for number in (8, 9, 10):
        save(tmp_path / folder / "rain" / "walk" / f"{number}.png", RAINY, number)
        save(tmp_path / folder / "gt" / "walk" / f"frame_{number:04d}.jpg", CLEAN, number)
    check(paired_dataset(tmp_path, "pairs", split), ["walk"], (8, 9, 10))


def test_every_shipped_layout_is_tested_here() -> None:
    tested = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in LAYOUTS.names() if f'"{name}"' not in tested] == []


def test_what_has_no_partner_is_skipped_and_told(tmp_path: Path) -> None:
    for clip, wet, dry in (("a", (1, 2, 3), (2, 3, 4)), ("b", (1,), ()), ("c", (), (1,)), ("d", (1,), (2,))):
        for side, numbers, red in (("rain", wet, RAINY), ("gt", dry, CLEAN)):
            (tmp_path / side / clip).mkdir(parents=True)
            for number in numbers:
                save(tmp_path / side / clip / f"{number}.png", red, number)
    save(tmp_path / "rain" / "e" / "1.png", RAINY)
    save(tmp_path / "gt" / "f" / "1.png", CLEAN)
    dataset = paired_dataset(tmp_path, "pairs", "all")
    check(dataset, ["a"], (2, 3))
    assert dataset.skipped == (
        "clip a: frame 1 has no ground truth",
        "clip a: frame 4 has no rainy image",
        "clip b: no ground truth",
        "clip c: no rainy frame",
        "clip d: no frame number in common",
        "clip e: no ground truth",
        "clip f: no rainy frame",
    )


def test_a_missing_folder_says_what_was_expected(tmp_path: Path) -> None:
    save(tmp_path / "rain" / "a" / "1.png", RAINY)
    with pytest.raises(InvalidFileError, match=r"must contain a folder 'gt', got rain\. Layouts are .*nturain"):
        paired_dataset(tmp_path, "pairs", "all")
    with pytest.raises(InvalidFileError, match=r"nowhere: must contain a folder 'rain', got no such folder"):
        paired_dataset(tmp_path / "nowhere", "pairs", "all")
    (tmp_path / "gt" / "a").mkdir(parents=True)
    with pytest.raises(InvalidFileError, match=r"must have a pair of .*\(clip a: no ground truth\)"):
        paired_dataset(tmp_path, "pairs", "all")


def test_two_files_of_one_number(tmp_path: Path) -> None:
    for name in ("1.png", "01.jpg"):
        save(tmp_path / "rain" / "a" / name, RAINY)
    with pytest.raises(InvalidFileError, match=r"1\.png: the same clip and frame number as .*01\.jpg"):
        paired_dataset(tmp_path, "pairs", "all")


def test_pairs_of_different_sizes(tmp_path: Path) -> None:
    for number in (1, 2):
        save(tmp_path / "rain" / "a" / f"{number}.png", RAINY)
        save(tmp_path / "gt" / "a" / f"{number}.png", CLEAN, size=(8, 6))
    (clip,) = paired_dataset(tmp_path, "pairs", "all").clips
    with pytest.raises(InvalidFileError, match=r"gt/a/2\.png: must be 9x6 like .*rain/a/2\.png, got 8x6"):
        clip.load(1)


def test_a_frame_that_is_no_integer(tmp_path: Path) -> None:
    for side in ("rain", "gt"):
        save(tmp_path / side / "a" / "one.png", RAINY)
    layout = Layout({"all": LAYOUTS.find("pairs").split("all")[0]}, frame="[a-z]+")
    with pytest.raises(InvalidFileError, match=r"one\.png: frame must be an integer, got '"):
        paired_dataset(tmp_path, layout, "all")


def test_the_published_size(tmp_path: Path) -> None:
    for kind in ("rfc", "gtc"):
        save(tmp_path / "frames_light_test_JPEG" / "10" / f"{kind}-1.jpg", RAINY, size=(889, 500))
    (clip,) = paired_dataset(tmp_path, "rainsyn-light-a", "test").clips
    assert clip.load()[0].shape == (1, 3, 500, 888)


@pytest.mark.parametrize(("split", "folder"), [("all", "."), ("train", "train"), ("test", "test")])
def test_pairs_of_video_files(tmp_path: Path, split: str, folder: str) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    clean = moving_texture(7, 22, 26)
    wet = clean.flip(1)
    for side, clip, frames in (("rain", "b", wet), ("gt", "b", clean), ("rain", "a", wet[:5]), ("gt", "a", clean)):
        with write_frames(tmp_path / folder / side / f"{clip}.mkv") as write:
            for frame in frames:
                write(frame)
    (tmp_path / folder / "rain" / "Thumbs.db").touch()
    dataset = paired_dataset(tmp_path, "pairs", split)
    assert dataset.skipped == ("clip a: frames from 5 to 6 have no rainy image",)
    assert [(clip.name, clip.numbers) for clip in dataset.clips] == [("a", tuple(range(5))), ("b", tuple(range(7)))]
    for pair, count in zip(dataset.clips, (5, 7), strict=True):
        assert all(map(torch.equal, pair.load(), (wet[:count], clean[:count])))
        assert all(map(torch.equal, pair.load(1, 3), (wet[1:3], clean[1:3])))
    (clip, _) = load_pairs(dataset.clips, limit=2)
    assert torch.equal(clip.frames[:], clean[:2])
    assert torch.equal(clip.rainy[0][:], wet[:2])
    layout = Layout({"all": Split("rain/{clip}", "gt/{clip}")}, crop=4)
    (pair, _) = paired_dataset(tmp_path / folder, layout, "all").clips
    assert [frames.shape for frames in pair.load()] == [(5, 3, 20, 24)] * 2
    with write_frames(tmp_path / folder / "gt" / "b.avi") as write:
        write(clean[0])
    with pytest.raises(InvalidFileError, match=r"b\.mkv: the same clip as .*b\.avi"):
        paired_dataset(tmp_path, "pairs", split)


def test_pairs_of_video_files_of_different_sizes(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    for side, size in (("rain", (22, 26)), ("gt", (22, 24))):
        with write_frames(tmp_path / side / "a.mkv") as write:
            write(moving_texture(1, *size)[0])
    (clip,) = paired_dataset(tmp_path, "pairs", "all").clips
    with pytest.raises(InvalidFileError, match=r"gt/a\.mkv: must be 26x22 like .*rain/a\.mkv, got 24x22"):
        clip.load()


def test_a_flat_pair_of_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (8, 9, 10):
        save(tmp_path / "walk" / "rain" / f"rainy_{number}.tif", RAINY, number)
        save(tmp_path / "walk" / "gt" / f"{number}.webp", CLEAN, number)
    monkeypatch.chdir(tmp_path / "walk")
    for root in (tmp_path / "walk", Path()):
        check(paired_dataset(root, "pairs", "all"), ["walk"], (8, 9, 10))


@pytest.mark.parametrize("hidden", ["rain/.ipynb_checkpoints/1-checkpoint.png", "gt/a/._2.png", "rain/a/.1.png.swp"])
def test_hidden_files_and_folders_are_no_data(tmp_path: Path, hidden: str) -> None:
    for number in (2, 3):
        for side, red in (("rain", RAINY), ("gt", CLEAN)):
            save(tmp_path / side / "a" / f"{number}.png", red, number)
    (tmp_path / hidden).parent.mkdir(exist_ok=True)
    (tmp_path / hidden).write_bytes(b"no image")
    dataset = paired_dataset(tmp_path, "pairs", "all")
    check(dataset, ["a"], (2, 3))
    assert dataset.skipped == ()


def test_names_that_do_not_match_are_shown(tmp_path: Path) -> None:
    for side in ("rain", "gt"):
        save(tmp_path / side / "a" / "1_clean.png", RAINY)
    with pytest.raises(
        InvalidFileError, match=r"\(clip a: no rainy frame; 'rain/a/1_clean\.png' does not match; 'gt/a/1_"
    ):
        paired_dataset(tmp_path, "pairs", "all")
    layout = Layout({"all": Split("rain/{clip}/.*?{frame}", "gt/{clip}/.*?{frame}")}, suffixes=(".jpg",))
    with pytest.raises(InvalidFileError, match=r"'rain/a/1_clean\.png' does not match"):
        paired_dataset(tmp_path, layout, "all")
