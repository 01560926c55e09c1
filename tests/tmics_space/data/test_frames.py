"""Folders of images as clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nas.errors import ConfigError, InvalidFileError
from tmics_space.data.frames import iterate_frames, numbered_files, read_frames, read_image


def save(path: Path, value: int, size: tuple[int, int] = (6, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 2, 3)).save(path)


def test_frames_come_in_the_order_of_their_integers(tmp_path: Path) -> None:
    for number in (10, 9, 1, 2):
        save(tmp_path / f"take2-{number}.png", number)
    (tmp_path / "Thumbs.db").write_bytes(b"\0")
    (tmp_path / "list.txt").write_text("9\n")
    (tmp_path / "old").mkdir()
    clip = read_frames(tmp_path)
    assert clip.shape == (4, 3, 4, 6)
    assert clip.dtype == torch.uint8
    assert clip[:, :, 0, 0].tolist() == [[n, 2, 3] for n in (1, 2, 9, 10)]
    stream = iterate_frames(tmp_path)
    assert (len(stream), stream.height, stream.width, stream.frame_rate) == (4, 4, 6, 25.0)
    assert stream.stems == ("take2-1", "take2-2", "take2-9", "take2-10")
    for _ in range(2):  # it can be read again
        assert torch.equal(torch.stack(list(stream)), clip)
    assert torch.equal(read_frames(tmp_path, 1, None, 2), clip[1::2])
    assert torch.equal(read_frames(tmp_path, 1, 3), clip[1:3])


def test_a_photograph_is_a_clip_of_one_frame(tmp_path: Path) -> None:
    save(tmp_path / "photograph.png", 7)
    assert read_frames(tmp_path / "photograph.png").shape == (1, 3, 4, 6)


def test_grey_palette_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    for index, mode in enumerate(("L", "P", "RGBA", "1")):
        Image.new(mode, (6, 4), 0).save(tmp_path / f"{index}.png")
    assert read_frames(tmp_path).shape == (4, 3, 4, 6)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".PNG"])
def test_frames_of_every_format(tmp_path: Path, suffix: str) -> None:
    for number in (1, 2):
        save(tmp_path / f"{number}{suffix}", 0)
    assert read_frames(tmp_path).shape == (2, 3, 4, 6)
    assert read_frames(tmp_path / f"1{suffix}").shape == (1, 3, 4, 6)


def test_frames_are_turned_as_their_camera_was(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn: its left becomes the top
    pixels = np.zeros((3, 6, 3), np.uint8)
    pixels[:, 0] = 255
    for number in (1, 2):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png", exif=exif)
    stream = iterate_frames(tmp_path)
    assert (stream.height, stream.width) == (6, 3)
    upright = torch.stack(list(stream))
    assert upright[:, :, :, 0].tolist() == [[[255, 0, 0, 0, 0, 0]] * 3] * 2
    assert torch.equal(read_frames(tmp_path), upright)
    assert torch.equal(read_image(tmp_path / "1.png"), upright[0])


def test_hidden_files_are_no_frames(tmp_path: Path) -> None:
    for number in (1, 2):
        save(tmp_path / f"{number}.jpg", 0)
    (tmp_path / "._1.jpg").write_bytes(b"resource fork")
    save(tmp_path / ".ipynb_checkpoints" / "1-checkpoint.jpg", 0)
    assert iterate_frames(tmp_path).stems == ("1", "2")


@pytest.mark.parametrize(
    ("numbers", "cuts"),
    [
        ((1, 2, 3, 7, 8), (3,)),
        ((4, 5, 6, 7), ()),
        ((0, 5, 10, 20, 25), (3,)),  # every fifth frame
        ((1, 3, 4, 6), (1, 3)),
        ((1000, 1033, 1067, 1100, 1200), (4,)),  # times in milliseconds
        ((3, 9), ()),
        ((3,), ()),
    ],
)
def test_gaps_in_the_numbers_are_cuts(tmp_path: Path, numbers: tuple[int, ...], cuts: tuple[int, ...]) -> None:
    for number in numbers:
        save(tmp_path / f"{number}.png", 0)
    assert iterate_frames(tmp_path).cuts == cuts


def test_other_sizes_name_the_file_and_the_sizes(tmp_path: Path) -> None:
    save(tmp_path / "1.png", 0)
    save(tmp_path / "2.png", 0, (8, 4))
    for read in (read_frames, lambda path: list(iterate_frames(path))):
        with pytest.raises(InvalidFileError, match=r"2(\.png)?: must be 6x4 .*, got 8x4"):
            read(tmp_path)


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match=r"nowhere: no such folder or file; expected a folder of numbered"):
        read_frames(tmp_path / "nowhere")
    (tmp_path / "Thumbs.db").write_bytes(b"\0")
    with pytest.raises(InvalidFileError, match=r"no image in this folder; expected \.png"):
        read_frames(tmp_path)


def test_unreadable_images(tmp_path: Path) -> None:
    save(tmp_path / "1.jpg", 0)
    data = (tmp_path / "1.jpg").read_bytes()
    (tmp_path / "2.jpg").write_bytes(b"not an image")
    (tmp_path / "3.jpg").write_bytes(data[: len(data) // 2])
    for name in ("2.jpg", "3.jpg"):
        with pytest.raises(InvalidFileError, match=rf"{name}: (not|cannot be read as) an image"):
            read_image(tmp_path / name)
    with pytest.raises(InvalidFileError, match=r"4\.jpg: no such file"):
        read_image(tmp_path / "4.jpg")
    Image.fromarray(np.zeros((4, 6), np.uint16)).save(tmp_path / "5.png")
    with pytest.raises(InvalidFileError, match=r"5\.png: must have 8 bits per colour"):
        read_image(tmp_path / "5.png")


def test_names_must_say_which_frame_they_are(tmp_path: Path) -> None:
    save(tmp_path / "a" / "first.png", 0)
    with pytest.raises(InvalidFileError, match=r"first\.png: no number in the name"):
        numbered_files(tmp_path / "a")
    save(tmp_path / "b" / "gt-1.png", 0)
    save(tmp_path / "b" / "rf-01.jpg", 0)
    with pytest.raises(InvalidFileError, match=r"rf-01\.jpg: the same frame number as gt-1\.png"):
        numbered_files(tmp_path / "b")


@pytest.mark.parametrize(("start", "stop", "step"), [(-1, None, 1), (2, 2, 1), (0, None, 0)])
def test_bad_ranges(tmp_path: Path, start: int, stop: int | None, step: int) -> None:
    with pytest.raises(ConfigError, match=f"0 <= start < stop .*, got {start}:{stop}:{step}"):
        read_frames(tmp_path, start, stop, step)


def test_a_range_after_the_end(tmp_path: Path) -> None:
    save(tmp_path / "1.png", 0)
    with pytest.raises(ConfigError, match=r"range must .*, got 5:None"):
        read_frames(tmp_path, 5)
    with pytest.raises(ConfigError, match=r"range must .*, got 5:None"):
        read_frames(tmp_path / "1.png", 5)
