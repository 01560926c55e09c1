"""What `nas predict` refuses with one line, and what it repairs: the tables of docs/deraining.md, row by row."""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import filmed
from nas.errors import ConfigError, InvalidFileError, NASError
from tmics_space.data import iterate_frames, moving_texture, read_frames, write_frames
from tmics_space.network import Restored
from tmics_space.predict import derain_file

PAGE = (Path(__file__).parents[2] / "docs" / "deraining.md").read_text(encoding="utf-8")


class Same(nn.Module):
    """A network that returns the centre frame."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, frames: Tensor) -> Restored:
        centre = self.gain * frames[:, 2]
        return Restored(centre, centre, centre, torch.ones(1, 1, 1, 1), centre.mean())


def saved(path: Path, clip: Tensor) -> Path:
    with write_frames(path) as write:
        for frame in clip:
            write(frame)
    return path


def pictures(folder: Path, *images: Image.Image) -> Path:
    folder.mkdir()
    for number, image in enumerate(images):
        image.save(folder / f"{number}.png")
    return folder


def texture(count: int = 3, height: int = 32, width: int = 48) -> Sequence[np.ndarray]:
    return [*moving_texture(count, height, width).permute(0, 2, 3, 1).numpy()]


def rows(heading: str) -> list[str]:
    """The first column of the table below a heading of the page."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| ([^|]+?) +\|", section, re.MULTILINE)[1:]


# --- refused ---


def no_frames(folder: Path) -> Path:
    (folder / "in").mkdir()
    return folder / "in"


def no_number(folder: Path) -> Path:
    path = pictures(folder / "in", Image.new("RGB", (6, 4)))
    (path / "0.png").rename(path / "first.png")
    return path


def other_sizes(folder: Path) -> Path:
    return pictures(folder / "in", Image.new("RGB", (6, 4)), Image.new("RGB", (7, 4)))


def broken(folder: Path) -> Path:
    path = saved(folder / "in", moving_texture(3, 20, 24))
    (path / "00002.png").write_bytes((path / "00002.png").read_bytes()[:100])
    return path


def sixteen_bits(folder: Path) -> Path:
    (folder / "in").mkdir()
    filmed.png48(folder / "in" / "1.png")
    return folder / "in"


def no_film(folder: Path) -> Path:
    (folder / "in.mp4").write_text("no film")
    return folder / "in.mp4"


def cut(folder: Path) -> Path:
    path = filmed.film(folder / "in.mkv", texture(20), range(0, 800, 40))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 4 // 5])
    return path


def only_sound(folder: Path) -> Path:
    import av

    path = folder / "in.mp4"
    with av.open(str(path), "w") as container:
        audio = container.add_stream("aac", rate=filmed.RATE)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts, frame.time_base = filmed.RATE, 0, Fraction(1, filmed.RATE)
        container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    return path


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no such file or folder": (lambda folder: folder / "in", "in: no such folder or file"),
    "a folder without images": (no_frames, "in: no image in this folder"),
    "a name without a number": (no_number, "first.png: no number in the name"),
    "frames of different sizes": (other_sizes, r"1: must be 6x4 like the first frame, got 7x4"),
    "a damaged image": (broken, r"00002\.png: cannot be read as an image"),
    "images of 16 bits": (sixteen_bits, r"1\.png: must have 8 bits per colour"),
    "a file that is no video": (no_film, r"in\.mp4: not a readable video"),
    "a video file without a picture": (only_sound, r"in\.mp4: must be a video file or a folder of images"),
    "a video file that is cut off or damaged": (cut, r"in\.mkv: frame \d+: the film stops here"),
}


@pytest.mark.parametrize("row", REFUSED)
def test_what_is_refused(row: str, tmp_path: Path) -> None:
    make, message = REFUSED[row]
    source = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(NASError, match=message) as found:
        derain_file(Same(), source, tmp_path / "out")
    assert "\n" not in str(found.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("sink", "message"),
    [
        ("taken.mp4", r"taken\.mp4: exists already"),
        ("taken", "taken: exists already"),
        ("out.png", r"out\.png: one image must get one frame"),
        ("out.wmv", r"out\.wmv: the suffix must be one of \.mp4, .*got '\.wmv'"),
        ("taken.mp4/out", "cannot be written"),
    ],
)
def test_sinks_that_are_refused(sink: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "taken.mp4").write_text("mine")
    saved(tmp_path / "taken", moving_texture(1, 8, 8))
    source = saved(tmp_path / "in", moving_texture(2, 20, 24))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises((InvalidFileError, ConfigError), match=message):
        derain_file(Same(), source, tmp_path / sink)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_disk_that_is_full_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    clip = moving_texture(2, 20, 24)
    with write_frames(tmp_path / "in.mkv") as write:
        for frame in clip:
            write(frame)
    with pytest.raises(InvalidFileError, match="out: cannot be written: No space left on device"):
        derain_file(Same(), tmp_path / "in.mkv", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


def test_video_without_pyav_is_refused_and_folders_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = saved(tmp_path / "in", moving_texture(2, 20, 24))
    monkeypatch.setitem(sys.modules, "av", None)
    derain_file(Same(), source, tmp_path / "out")
    for given in ((source, tmp_path / "out.mp4"), (no_film(tmp_path), tmp_path / "other")):
        with pytest.raises(ConfigError, match=r"pip install 'tmics-nas\[video\]'"):
            derain_file(Same(), *given)


# --- repaired ---


def check(source: Path, expected: Tensor, folder: Path, sink: str = "out") -> None:
    """Assert that deraining by `Same` gives these frames, `(frames, 3, height, width)`."""
    facts = derain_file(Same(), source, folder / sink)
    assert facts["frames"] == len(expected)
    found = read_frames(folder / sink)
    assert found.shape == expected.shape
    assert (found.float() - expected.float()).abs().mean() < (0.01 if sink == "out" else 8)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1), (15, 16), (17, 33)])
def test_small_and_odd_sizes_stay(size: tuple[int, int], tmp_path: Path) -> None:
    clip = moving_texture(3, *size)
    check(saved(tmp_path / "in", clip), clip, tmp_path)
    derain_file(Same(), tmp_path / "in", tmp_path / "out.mp4")
    assert read_frames(tmp_path / "out.mp4").shape == clip.shape


def test_grey_palette_and_transparent_images_become_colours(tmp_path: Path) -> None:
    grey = Image.fromarray(texture()[0][..., 0])
    clear = grey.convert("RGBA")
    clear.putalpha(7)
    source = pictures(tmp_path / "in", grey, clear, grey.convert("P"), grey.convert("LA"))
    expected = torch.from_numpy(np.array(grey)).expand(4, 3, -1, -1)
    check(source, expected, tmp_path)


def test_one_frame_is_a_clip(tmp_path: Path) -> None:
    clip = moving_texture(1, 20, 24)
    check(saved(tmp_path / "in.mkv", clip), clip, tmp_path)


def test_a_rotated_video_is_turned_upright(tmp_path: Path) -> None:
    clip = moving_texture(2, 32, 64)
    path = saved(tmp_path / "in.mp4", clip)
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40  # ISO 14496-12, 8.3.2
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 32 * 65536, 0, 1 << 30)
    path.write_bytes(data)
    check(path, clip.rot90(-1, (2, 3)), tmp_path, "out.mp4")


def test_a_variable_rate_and_the_sound_are_kept(tmp_path: Path) -> None:
    times = [0, 40, 80, 500, 540, 1500, 1540]
    source = filmed.film(tmp_path / "in.mp4", texture(7), times, sound="aac")
    derain_file(Same(), source, tmp_path / "out.mp4")
    assert [span.start * 1000 for _, span in iterate_frames(tmp_path / "out.mp4").timed() if span] == times
    assert filmed.heard(tmp_path / "out.mp4") == filmed.heard(source)


def test_doubled_frames_are_counted_and_kept(tmp_path: Path) -> None:
    clip = moving_texture(12, 20, 24)[[index // 2 for index in range(24)]]
    source = saved(tmp_path / "in", clip)
    assert derain_file(Same(), source, tmp_path / "out")["doubled"] == 12
    assert torch.equal(read_frames(tmp_path / "out"), clip)


def test_a_video_of_ten_bits_is_rounded_to_eight(tmp_path: Path) -> None:
    import av

    clip = moving_texture(3, 32, 48)
    with av.open(str(tmp_path / "in.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv444p10le"
        for frame in clip.permute(0, 2, 3, 1).numpy():
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24").reformat(format="yuv444p10le")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    check(tmp_path / "in.mkv", clip, tmp_path, "out.mkv")


def test_the_page_has_a_row_for_each_refused_input() -> None:
    assert set(REFUSED) <= set(rows("What is refused"))
