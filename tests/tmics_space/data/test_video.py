"""Video files."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest
import torch

from nas.errors import ConfigError, InvalidFileError
from tmics_space.data import iterate_frames, moving_texture, read_frames, write_frames


def saved(path: Path, clip: torch.Tensor, frame_rate: float = 25.0) -> Path:
    with write_frames(path, frame_rate) as write:
        for frame in clip:
            write(frame)
    return path


@pytest.mark.parametrize("size", [(48, 64), (47, 63)])
def test_matroska_is_lossless_at_any_size(tmp_path: Path, size: tuple[int, int]) -> None:
    clip = moving_texture(5, *size)
    stream = iterate_frames(saved(tmp_path / "clip.mkv", clip, 24))
    assert (len(stream), stream.height, stream.width, stream.frame_rate, stream.stems) == (5, *size, 24.0, ())
    assert torch.equal(torch.stack(list(stream)), clip)
    assert torch.equal(read_frames(stream.source, 1, 4, 2), clip[1:4:2])


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".avi"])
@pytest.mark.parametrize("size", [(48, 64), (47, 63)])
def test_other_files_lose_little_and_keep_the_colours(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    clip = moving_texture(5, *size)
    stream = iterate_frames(saved(tmp_path / f"clip{suffix}", clip, 30000 / 1001))
    assert (len(stream), stream.height, stream.width) == (5, *size)
    assert stream.frame_rate == pytest.approx(30000 / 1001)
    difference = torch.stack(list(stream)).float() - clip.float()
    assert difference.square().mean().sqrt() < 5
    assert difference.mean((0, 2, 3)).abs().max() < 0.7  # FFmpeg's quick conversion would darken by 1.4


def test_mpeg4_stands_in_for_h264(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import av

    monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    clip = moving_texture(3, 48, 64)
    assert (read_frames(saved(tmp_path / "clip.mp4", clip)).float() - clip.float()).abs().mean() < 5


def test_a_telephone_held_upright(tmp_path: Path) -> None:
    clip = moving_texture(2, 32, 64)
    path = saved(tmp_path / "clip.mp4", clip)
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40  # ISO 14496-12, 8.3.2: 40 bytes before the matrix in version 0
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 32 * 65536, 0, 1 << 30)
    path.write_bytes(data)
    stream = iterate_frames(path)
    assert (stream.height, stream.width) == (64, 32)
    upright = clip.rot90(-1, (2, 3)).float()  # that matrix asks for a quarter turn clockwise
    assert (torch.stack(list(stream)).float() - upright).abs().mean() < 5


def test_what_is_not_a_video(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"not a video")
    with pytest.raises(InvalidFileError, match=r"clip\.mp4: not a readable video"):
        iterate_frames(path)
    whole = saved(tmp_path / "whole.mp4", moving_texture(5, 48, 64)).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidFileError, match=r"clip\.mp4: not a readable video"):
        read_frames(path)


def test_without_pyav_the_message_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match=r"pip install 'tmics-nas\[video\]'"):
        read_frames(path)
    with pytest.raises(ConfigError, match=r"tmics-nas\[video\]"), write_frames(tmp_path / "new.mp4"):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["clip.mp4"]
