"""Clips on disk: they give what the same clip in memory gives, and keep no more than they may."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from nas.errors import InvalidFileError
from tmics_space.data import Clip, moving_texture, rain, sample, stored
from tmics_space.data.frames import read_image
from tmics_space.data.stored import StoredFrames, cached

CLIP = moving_texture(6, 11, 14)


def saved(folder: Path, clip: torch.Tensor = CLIP) -> tuple[Path, ...]:
    folder.mkdir()
    files = tuple(folder / f"{index}.png" for index in range(len(clip)))
    for file, frame in zip(files, clip, strict=True):
        Image.fromarray(frame.permute(1, 2, 0).numpy()).save(file)
    return files


def test_frames_are_those_of_the_files(tmp_path: Path) -> None:
    frames = StoredFrames(saved(tmp_path / "clip"))
    assert frames.shape == CLIP.shape
    assert len(frames) == len(CLIP)
    assert torch.equal(frames[:], CLIP)
    assert torch.equal(frames[1:3], CLIP[1:3])
    assert torch.equal(frames[[2, 1, 0, 1, 2]], CLIP[[2, 1, 0, 1, 2]])
    assert torch.equal(torch.stack(list(frames)), CLIP)


def test_frames_are_cut_to_multiples(tmp_path: Path) -> None:
    frames = StoredFrames(saved(tmp_path / "clip"), crop=4)
    assert frames.shape == (6, 3, 8, 12)
    assert torch.equal(frames[:], CLIP[..., :8, :12])


def test_batches_equal_those_of_clips_in_memory(tmp_path: Path) -> None:
    wet = rain(CLIP, "light25", 0)
    clean, rainy = StoredFrames(saved(tmp_path / "clean")), StoredFrames(saved(tmp_path / "rainy", wet))
    for index in range(4):
        found = sample([Clip("a", "a", clean, (rainy,))], index, 0, crop=8)
        expected = sample([Clip("a", "a", CLIP, (wet,))], index, 0, crop=8)
        assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("bad", [0, 3, 5])
def test_a_bad_file_is_named_at_the_latest_when_it_is_read(tmp_path: Path, bad: int) -> None:
    files = saved(tmp_path / "clip")
    Image.new("RGB", (14, 10)).save(files[bad])
    with pytest.raises(InvalidFileError, match=r"\d\.png: must be 14x1[01] like .*0\.png, got 14x1[01]"):
        StoredFrames(files)[:]
    files[bad].write_bytes(b"no image")
    with pytest.raises(InvalidFileError, match=rf"{bad}\.png: (not|cannot be read as) an image"):
        StoredFrames(files)[:]
    files[bad].unlink()
    with pytest.raises(InvalidFileError, match=rf"{bad}\.png: no such file"):
        StoredFrames(files)[:]


def test_few_headers_are_read_when_a_clip_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, read = saved(tmp_path / "clip"), []
    original = stored.upright_size
    monkeypatch.setattr(stored, "upright_size", lambda file: read.append(file) or original(file))
    clean, rainy = StoredFrames(files), StoredFrames(files)
    rainy.require_like(clean)
    assert len(read) == 4
    Image.new("RGB", (14, 10)).save(files[-1])
    with pytest.raises(InvalidFileError, match=r"5\.png: must be 14x11 like .*0\.png, got 14x10"):
        StoredFrames(files)


def test_a_file_damaged_further_on_is_named_when_it_is_read(tmp_path: Path) -> None:
    files = saved(tmp_path / "clip")
    files[2].write_bytes(files[2].read_bytes()[:-60])
    frames = StoredFrames(files)
    with pytest.raises(InvalidFileError, match=r"2\.png: (not|cannot be read as) an image"):
        frames[:]


def test_no_more_is_kept_than_there_is_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = saved(tmp_path / "clip")
    reads = []
    monkeypatch.setattr(stored, "read_image", lambda file: reads.append(file) or read_image(file))
    monkeypatch.setattr(stored, "CACHE", 4 * CLIP[0].numel())
    frames = StoredFrames(files, read=cached(files[0]))
    for _ in range(2):
        assert torch.equal(frames[:4], CLIP[:4])
    assert len(reads) == 4
    assert torch.equal(frames[:], CLIP)
    assert torch.equal(frames[:1], CLIP[:1])  # given up for the last two, and read again
    assert len(reads) == 7


def test_stored_frames_are_turned_as_their_camera_was(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    for index in range(2):
        Image.fromarray(CLIP[index].permute(1, 2, 0).numpy()).save(tmp_path / f"{index}.png", exif=exif)
    frames = StoredFrames((tmp_path / "0.png", tmp_path / "1.png"))
    assert frames.shape == (2, 3, 14, 11)
    assert torch.equal(frames[:], CLIP[:2].rot90(1, (2, 3)))
