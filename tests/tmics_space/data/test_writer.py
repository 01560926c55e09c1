"""Writing clips: complete or not at all."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch

from nas.errors import ConfigError, InvalidFileError
from tmics_space.data import iterate_frames, moving_texture, read_frames, write_frames

TARGETS = ["out", "out.mp4"]


def test_a_folder_of_png_files(tmp_path: Path) -> None:
    clip = moving_texture(11, 8, 10)
    target = tmp_path / "new" / "out"
    with write_frames(target) as write:
        for frame in clip:
            write(frame)
        assert not target.exists()
    assert torch.equal(read_frames(target), clip)
    assert iterate_frames(target).stems[::10] == ("00001", "00011")
    assert [path.name for path in target.parent.iterdir()] == ["out"]


def test_a_folder_keeps_the_names_given(tmp_path: Path) -> None:
    with write_frames(tmp_path / "out") as write:
        for stem in ("a-7", "a-8"):
            write(moving_texture(1, 8, 10)[0], stem)
    assert iterate_frames(tmp_path / "out").stems == ("a-7", "a-8")


@pytest.mark.parametrize("target", TARGETS)
def test_an_interruption_leaves_nothing(tmp_path: Path, target: str) -> None:
    def interrupted() -> None:
        with write_frames(tmp_path / target) as write:
            write(moving_texture(1, 8, 10)[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", TARGETS)
def test_what_a_killed_run_left_is_replaced(tmp_path: Path, target: str) -> None:
    writer = write_frames(tmp_path / target)
    write = writer.__enter__()
    write(moving_texture(1, 8, 10)[0], "99999")  # and it never ends
    clip = moving_texture(2, 8, 10)
    with write_frames(tmp_path / target) as again:
        for frame in clip:
            again(frame)
    assert len(read_frames(tmp_path / target)) == 2
    writer.gen.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_is_overwritten(tmp_path: Path, target: str) -> None:
    for _ in range(2):
        path = tmp_path / target
        if path.exists():
            with pytest.raises(InvalidFileError, match="exists already"), write_frames(path):
                pytest.fail("work began")
        else:
            with write_frames(path) as write:
                write(moving_texture(1, 8, 10)[0])
    (tmp_path / "empty").mkdir()
    with write_frames(tmp_path / "empty") as write:  # loses nothing
        write(moving_texture(1, 8, 10)[0])


@pytest.mark.parametrize("target", TARGETS)
def test_an_unwritable_target_is_told_before_work_begins(tmp_path: Path, target: str) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(InvalidFileError, match=r"file/out.*cannot be written: "),
        write_frames(tmp_path / "file" / target),
    ):
        pytest.fail("work began")


def test_an_unknown_suffix(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"suffix must .*\.mp4.*, got '\.gif'"), write_frames(tmp_path / "out.gif"):
        pytest.fail("work began")


@pytest.mark.parametrize("target", TARGETS)
def test_frames_must_be_alike(tmp_path: Path, target: str) -> None:
    frame = moving_texture(1, 8, 10)[0]

    def write_both(other: torch.Tensor) -> None:
        with write_frames(tmp_path / target) as write:
            write(frame)
            write(other)

    for other in (frame[:, :6], frame.float(), frame[:1]):
        with pytest.raises(ConfigError, match=r"frame 2 must be \(3, 8, 10\) torch\.uint8, got"):
            write_both(other)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", TARGETS)
def test_an_empty_clip_is_an_error(tmp_path: Path, target: str) -> None:
    with pytest.raises(InvalidFileError, match="at least one frame, got none"), write_frames(tmp_path / target):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("target", "frames"), [("out", 40), ("out.mkv", 40), ("out.mp4", 90), ("out.mp4", 12)])
def test_a_disk_that_is_full(tmp_path: Path, target: str, frames: int) -> None:
    """While frames come in, or (12 of them wait in the encoder) at the end."""
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("no right to mount a small disk")

    def write_much() -> None:
        with write_frames(small / target) as write:
            for frame in torch.randint(256, (frames, 3, 96, 96)).to(torch.uint8):
                write(frame)

    try:
        with pytest.raises(InvalidFileError, match=rf"{target}: cannot be written: No space left on device"):
            write_much()
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)


def test_the_current_folder_is_no_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidFileError, match="exists already"), write_frames("."):
        pytest.fail("work began")


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff", ".webp", ".jpg", ".jpeg", ".PNG"])
def test_one_image(tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"out{suffix}"
    (frame,) = moving_texture(1, 18, 20)
    with write_frames(target) as write:
        write(frame)
        assert not target.exists()
    (found,) = read_frames(target)
    assert (found.int() - frame.int()).abs().max() <= (12 if suffix in (".jpg", ".jpeg") else 0)
    with pytest.raises(InvalidFileError, match="exists already"), write_frames(target):
        pytest.fail("work began")


def test_more_frames_than_one_image_has_room_for(tmp_path: Path) -> None:
    def write_both() -> None:
        with write_frames(tmp_path / "out.png") as write:
            for frame in moving_texture(2, 8, 10):
                write(frame)

    with pytest.raises(ConfigError, match=r"out\.png: one image must"):
        write_both()
    assert list(tmp_path.iterdir()) == []
