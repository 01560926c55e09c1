from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nas.errors import InvalidFileError
from tmics_space.data.matching import match_clips
from tmics_space.data.writer import write_frames


def clip(path: Path, numbers: range | list[int], size: tuple[int, int] = (16, 18), suffix: str = "") -> Path:
    """Frames whose brightness is their number, in a folder or a video file."""
    with write_frames(path.with_suffix(suffix)) as write:
        for number in numbers:
            write(torch.full((3, *size), 10 * number, dtype=torch.uint8), f"f{number:03d}")
    return path.with_suffix(suffix)


def test_frames_meet_by_number_and_the_rest_is_reported(tmp_path: Path) -> None:
    sources = {
        "truth": clip(tmp_path / "truth", range(1, 8)),
        "ours": clip(tmp_path / "ours", [3, 4, 6]),
        "peer": clip(tmp_path / "peer", [2, 3, 4, 6, 9]),
    }
    (found,), skipped = match_clips(sources)
    assert skipped == []
    assert (found.name, found.numbers) == ("truth", (3, 4, 6))
    assert found.places == {"truth": (2, 3, 5), "ours": (0, 1, 2), "peer": (1, 2, 3)}
    read = list(found.frames())
    assert [{frame.unique().item() for frame in each.values()} for each in read] == [{30}, {40}, {60}]
    assert [line.split(": ")[1].split(" is")[0] for line in found.skipped] == [
        *("frame 1", "frame 1", "frame 2", "frame 5", "frame 5", "frame 7", "frame 7", "frame 9", "frame 9")
    ]


def test_clips_meet_by_name_and_a_video_meets_a_folder_by_position(tmp_path: Path) -> None:
    for name in ("a", "b"):
        clip(tmp_path / "truth" / name, range(4), suffix=".mkv")
    clip(tmp_path / "ours" / "b", range(1, 5))
    clip(tmp_path / "ours" / "c", range(1, 5))
    (found,), skipped = match_clips({"truth": tmp_path / "truth", "ours": tmp_path / "ours"})
    assert (found.name, found.numbers) == ("b", (0, 1, 2, 3))
    assert [len(each) for each in found.frames()] == [2, 2, 2, 2]
    assert skipped == [f"clip a: not in {tmp_path / 'ours'}", f"clip c: not in {tmp_path / 'truth'}"]


def test_paths_of_a_form(tmp_path: Path) -> None:
    for name in ("a1", "a2"):
        for kind in ("GT", "Rain"):
            clip(tmp_path / "test" / f"{name}_{kind}", range(2))
        clip(tmp_path / "peer" / name / "out", range(2))
    (tmp_path / "peer" / "a3").mkdir()
    forms = {"truth": "test/{clip}_GT", "rainy": "test/{clip}_Rain", "peer": "peer/{clip}/out"}
    found, skipped = match_clips({version: tmp_path / form for version, form in forms.items()})
    assert [each.name for each in found] == ["a1", "a2"]
    assert [each.versions["rainy"].source.name for each in found] == ["a1_Rain", "a2_Rain"]
    assert skipped == []
    with pytest.raises(InvalidFileError, match=r"\{clip\}_spac: .*got a1_GT, a1_Rain, a2_GT"):
        match_clips({"truth": tmp_path / "test/{clip}_spac"})
    with pytest.raises(InvalidFileError, match="nowhere: no such folder"):
        match_clips({"truth": tmp_path / "nowhere/{clip}"})


def test_what_does_not_match_is_named(tmp_path: Path) -> None:
    truth = clip(tmp_path / "truth", range(4))
    many = tmp_path / "many"
    for name in ("x", "y"):
        clip(many / name, range(4))
    (tmp_path / "empty").mkdir()
    short = clip(tmp_path / "short", range(3), suffix=".mkv")
    for ours, place, value in (
        (clip(tmp_path / "large", range(4), (20, 18)), "large", "16x18|18x16.*got 18x20"),
        (clip(tmp_path / "shifted", range(1, 5)), "shifted", "4 from 0 to 3, got 4 from 1 to 4"),
        (clip(tmp_path / "other", range(7, 9)), "other", "got 2 from 7 to 8"),
        (short, "short.mkv", "must have 4 frames .*, got 3"),
        (many, "truth", "no clip has the same name"),
        (tmp_path / "empty", "empty", "got none"),
        (tmp_path / "missing", "missing", "no such file or folder"),
    ):
        with pytest.raises(InvalidFileError, match=rf"{place}.*(?:{value})"):
            match_clips({"truth": truth, "ours": ours})


def test_a_cut_video_ends_in_an_error_with_its_name(tmp_path: Path) -> None:
    """A container can count more frames than can be decoded."""
    truth, ours = (clip(tmp_path / name, range(4), suffix=".mkv") for name in ("truth", "ours"))
    (found,), _ = match_clips({"truth": truth, "ours": ours})
    found = found._replace(places={**found.places, "ours": (0, 1, 2, 7)})
    with pytest.raises(InvalidFileError, match=r"ours\.mkv: must have .* frames, got only 4"):
        list(found.frames())
