"""Stacked frames are those of the film, in memory or in a temporary file, and take constant memory."""

from __future__ import annotations

import errno
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from nas.errors import InvalidFileError
from tmics_space.data import mapped, moving_texture, read_frames, write_frames
from tmics_space.data.clips import load_clips, sample
from tmics_space.data.mapped import stacked
from tmics_space.data.packed import PackedFrames
from tmics_space.data.rainfall import RainMix

CLIP = moving_texture(9, 22, 27)


def save(frames: torch.Tensor, folder: Path) -> None:
    with write_frames(folder) as write:
        for frame in frames:
            write(frame)


@pytest.fixture(params=[0, 3 * CLIP[0].numel(), 2**30], ids=["in a file", "partly", "in memory"])
def largest(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "LARGEST", request.param)


@pytest.mark.usefixtures("largest")
def test_frames_are_those_of_the_clip(tmp_path: Path) -> None:
    save(CLIP, tmp_path / "clip")
    assert torch.equal(read_frames(tmp_path / "clip"), CLIP)
    assert torch.equal(read_frames(tmp_path / "clip", 2, 8, 3), CLIP[2:8:3])
    assert torch.equal(mapped.chosen(stacked(CLIP), [2, 3, 4]), CLIP[2:5])
    assert torch.equal(mapped.chosen(stacked(CLIP), [1, 5, 8]), CLIP[[1, 5, 8]])
    with pytest.raises(RuntimeError):
        stacked([CLIP[0], CLIP[1][:, 1:]])
    with pytest.raises(RuntimeError):
        stacked([])


@pytest.mark.usefixtures("largest")
def test_packed_frames_and_batches_of_films_do_not_depend_on_the_place(tmp_path: Path) -> None:
    packed = PackedFrames.pack(CLIP)
    assert packed.shape == CLIP.shape
    assert torch.equal(packed.select([1, 4])[:], packed[[1, 4]])
    assert (packed[:].int() - CLIP.int()).float().abs().mean() < 8
    save(torch.cat([CLIP[:5], CLIP[4:]]), tmp_path / "film")  # a frame is doubled
    (clip,) = load_clips([tmp_path / "film"], preset=RainMix(("light25",)))
    assert torch.equal(clip.frames[:], packed[:])
    batch = sample([clip], 0, 0, crop=16)
    assert batch.rainy.shape == batch.window.shape


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is of Linux")
def test_memory_does_not_grow_with_the_length(monkeypatch: pytest.MonkeyPatch) -> None:
    def own() -> int:
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.split("RssAnon:")[1].split()[0])

    monkeypatch.setattr(mapped, "LARGEST", 2**22)
    before, frame = own(), torch.arange(2**20, dtype=torch.int32).to(torch.uint8).view(4, 512, 512)
    frames = stacked(frame + index for index in range(64))
    assert all(torch.equal(each, frame + index) for index, each in enumerate(frames))
    assert own() - before < 2**24 < frames.numel()


def test_a_full_disk_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __enter__(self) -> Full:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def write(self, data: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(mapped, "LARGEST", 0)
    monkeypatch.setattr(tempfile, "TemporaryFile", Full)
    with pytest.raises(InvalidFileError, match="space"):
        stacked(CLIP)
