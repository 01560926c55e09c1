"""Video files."""

from __future__ import annotations

import struct
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import filmed
from nas.errors import ConfigError, InvalidFileError
from tmics_space.data import iterate_frames, moving_texture, read_frames, write_frames
from tmics_space.data.container import stated_size
from tmics_space.data.video import decode_video


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


def test_metadata_that_are_no_text_do_not_matter(tmp_path: Path) -> None:
    clip = moving_texture(3, 48, 64)
    path = saved(tmp_path / "clip.mkv", clip)
    data = path.read_bytes()
    assert b"Lavf" in data
    path.write_bytes(data.replace(b"Lavf", b"L\xff\xfef"))
    assert torch.equal(read_frames(path), clip)


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


TIMES = [0, 33, 67, 200, 233, 667, 700, 1000, 1333, 1367, 1400, 2000]
"""when the frames of an unsteady film are shown, in milliseconds"""


def unsteady(path: Path, **options: Any) -> Path:
    """A film like that of a telephone, whose frames come when there is light enough."""
    pixels = moving_texture(len(TIMES), 48, 64).permute(0, 2, 3, 1).numpy()
    return filmed.film(path, [*pixels], TIMES, **options)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".avi"])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_film_keeps_the_times_and_the_sound_of_another(tmp_path: Path, name: str, suffix: str) -> None:
    source = unsteady(tmp_path / name, sound="aac")
    stream = iterate_frames(source)
    assert stream.film is not None
    assert not stream.film.steady
    target = tmp_path / f"b{suffix}"
    with write_frames(target, stream.frame_rate, stream.film) as write:
        for frame, span in stream.timed():
            write(frame, span=span)
    found, expected = ([span.start for _, span in iterate_frames(path).timed() if span] for path in (target, source))
    assert expected == [Fraction(time, 1000) for time in TIMES]
    slack = 0.067 if suffix == ".avi" else 0.0011  # it shows frames at multiples of the shortest time, 0.033
    assert [float(time - found[0]) for time in found] == pytest.approx([float(time) for time in expected], abs=slack)
    codec, packets, heard = filmed.heard(target)
    source_codec, source_packets, source_heard = filmed.heard(source)
    assert (codec, packets) == (source_codec, source_packets)
    late = [float(a - b) for a, b in zip(heard, source_heard, strict=True)]  # as late as the frames
    assert late == pytest.approx([float(found[0] - expected[0])] * len(late), abs=max(slack, 0.0021) * 2)
    difference = torch.stack(list(iterate_frames(target))).float() - torch.stack(list(stream)).float()
    assert difference.square().mean().sqrt() < 5


@pytest.mark.parametrize("suffix", [".mov", ".avi"])
def test_sound_that_a_container_cannot_hold(tmp_path: Path, suffix: str) -> None:
    """At the first frame at the latest, and nothing is left behind."""
    stream = iterate_frames(unsteady(tmp_path / "a.mkv", sound="libopus"))

    def copy() -> None:
        with write_frames(tmp_path / f"b{suffix}", 25, stream.film) as write:
            write(next(iter(stream)))

    with pytest.raises(
        ConfigError, match=rf"{suffix} cannot hold the sound of .*a\.mkv \(opus\). Write to a \.mkv file"
    ):
        copy()
    assert [path.name for path in tmp_path.iterdir()] == ["a.mkv"]


def test_an_avi_file_has_an_order_and_no_times(tmp_path: Path) -> None:
    """Its frames are coded in another order than they are shown in, and that is all that it says."""
    pixels = moving_texture(9, 48, 64).permute(0, 2, 3, 1).numpy()
    stream = iterate_frames(filmed.film(tmp_path / "a.avi", [*pixels], range(9), Fraction(1, 25)))
    starts = [span.start for _, span in stream.timed() if span is not None]
    assert [after - before for before, after in pairwise(starts)] == [Fraction(1, 25)] * 8


def test_a_clock_that_begins_late_is_set_back(tmp_path: Path) -> None:
    """As that of a broadcast."""
    pixels = moving_texture(len(TIMES), 48, 64).permute(0, 2, 3, 1).numpy()
    path = filmed.film(tmp_path / "a.ts", [*pixels], [time + 5000 for time in TIMES], sound="aac")
    stream = iterate_frames(path)
    expected = [span.start for _, span in stream.timed() if span]
    assert expected[0] > 4
    with write_frames(tmp_path / "b.mp4", stream.frame_rate, stream.film) as write:
        for frame, span in stream.timed():
            write(frame, span=span)
    found = [span.start for _, span in iterate_frames(tmp_path / "b.mp4").timed() if span]
    late = {expected - found for expected, found in zip(expected, found, strict=True)}
    assert len(late) == 1
    assert found[0] < 0.1
    (_, packets, heard), (_, source_packets, source_heard) = map(filmed.heard, (tmp_path / "b.mp4", tmp_path / "a.ts"))
    assert len(packets) == len(source_packets)
    assert float(source_heard[0] - heard[0]) == pytest.approx(float(late.pop()), abs=1e-3)


def test_pixels_keep_their_shape(tmp_path: Path) -> None:
    clip = moving_texture(2, 32, 48)
    wide = iterate_frames(saved(tmp_path / "a.mp4", clip)).film
    assert wide is not None
    with write_frames(tmp_path / "b.mp4", 25, wide._replace(aspect=Fraction(4, 3))) as write:
        write(clip[0])
    found = iterate_frames(tmp_path / "b.mp4").film
    assert found is not None
    assert (wide.aspect, found.aspect) == (1, Fraction(4, 3))


CUT = [
    ("a.mkv", {}),
    ("a.webm", {"codec": "libvpx-vp9"}),
    ("a.avi", {}),
    ("a.mp4", {"options": {"movflags": "faststart"}}),
]


@pytest.mark.parametrize(("name", "how"), CUT)
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_film_that_is_cut_names_the_frame(tmp_path: Path, name: str, how: dict[str, Any], share: float) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(20, 32, 32, 3), dtype=np.uint8)
    path = filmed.film(tmp_path / name, [*pixels], range(0, 800, 40), **how)
    whole = path.read_bytes()
    assert stated_size(path) == len(whole)
    assert len(list(iterate_frames(path))) == 20
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InvalidFileError, match=rf"{name}: frame \d+: .*the file must have at least") as caught:
        iterate_frames(path)
    assert f"at least {len(whole):,} bytes, got {int(share * len(whole)):,}" in str(caught.value)
    frame = int(str(caught.value).split("frame ")[1].split(":")[0])
    assert 1 <= frame <= 20
    with pytest.raises(InvalidFileError, match=name):
        read_frames(path)


def test_a_film_without_its_end_is_no_film(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.mp4", moving_texture(9, 48, 64))  # its index is at the end
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(InvalidFileError, match=r"a\.mp4: .* must have at least .* bytes, got"):
        iterate_frames(path)


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_a_film_that_is_damaged_on_the_way_names_the_frame(tmp_path: Path, name: str) -> None:
    """As a download leaves it that reserved its room: the second half is zero."""
    pixels = np.random.default_rng(0).integers(256, size=(20, 32, 32, 3), dtype=np.uint8)
    path = filmed.film(
        tmp_path / name, [*pixels], range(0, 800, 40), options={"movflags": "faststart"} if "mp4" in name else {}
    )
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    with pytest.raises(InvalidFileError, match=rf"{name}: frame \d+: (the film stops here, after|cannot be decoded)"):
        list(iterate_frames(path))


def test_how_large_a_file_says_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    for data, stated in (
        (b"\0\0\0\x10ftypisom\0\0\0\0", 16),
        (b"\0\0\0\x08free\0\0\0\x01mdat" + (40).to_bytes(8, "big"), 48),
        (b"\0\0\0\x08free\0\0\0\0mdat", 8),  # up to the end, whatever that is
        (b"\0\0\0\x08free\0\0\0\x20\xff\xfe\xfd\xfc", 8),  # what a camera put behind it
        (b"\x1aE\xdf\xa3\x81\0\x18S\x80g\x40\x20", 6 + 6 + 32),
        (b"\x1aE\xdf\xa3\x81\0\x18S\x80g\x01" + b"\xff" * 7, None),  # a live recording
        (b"\x1aE\xdf\xa3\x01\x7f\xff", None),  # cut in its size
        (b"\x1aE\xdf\xa3\x01\0" + b"\xff" * 6, 12 + 2**48 - 1),  # farther than a file system can seek
        (b"RIFF\x05\0\0\0AVI \0\0RIFF\x04\0\0\0AVIX", 14 + 12),
        (b"RIFF\0\0\0\0AVI ", None),  # not closed
        (b"GIF89a", None),
        (b"", None),
    ):
        path.write_bytes(data)
        assert stated_size(path) == stated, data


def test_without_pyav_the_message_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match=r"pip install 'tmics-nas\[video\]'"):
        read_frames(path)
    with pytest.raises(ConfigError, match=r"tmics-nas\[video\]"), write_frames(tmp_path / "new.mp4"):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_decoder_that_gives_up_names_the_frame(tmp_path: Path) -> None:
    """One that raises nothing, but returns no frame of the last packets."""
    film = iterate_frames(unsteady(tmp_path / "a.mkv")).film
    assert film is not None
    assert film.late == Fraction(TIMES[-3], 1000)
    assert len(list(decode_video(film))) == len(TIMES)
    with pytest.raises(
        InvalidFileError, match=r"a\.mkv: frame 12: cannot be decoded, nor any after it: the file is dam"
    ):
        list(decode_video(film._replace(late=Fraction(3))))
