"""Films and pictures on two ranks: the files and scores are those of one rank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ranked import on_ranks
from ranked_films import WAYS, derained
from tmics_space.data import iterate_frames, moving_texture, write_frames

Found = tuple[Path, dict[str, Any], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """A folder with the files of one rank and of two, and what they return."""
    folder = tmp_path_factory.mktemp("films")
    clip = moving_texture(20, 20, 18)
    # Frames that are shown twice: across the turns of ranks, and one coded slightly differently.
    film = clip[[index for index in range(20) for _ in range(2 if index in (3, 6, 7, 12) else 1)]]
    film[4, 0, 0, 0] += 1
    frames = {"film.mkv": film, "gap": clip[:10], "short": clip[:5], "wide": moving_texture(3, 20, 100)}
    for name, content in frames.items():
        with write_frames(folder / name) as write:
            for index, frame in enumerate(content):
                write(frame, None if name != "gap" else f"{index + 10 * (index > 6):05d}")
    ranks = on_ranks(derained, folder, folder / "two")
    return folder, derained(folder, folder / "one"), ranks


def test_files_are_those_of_one_rank(found: Found) -> None:
    outs = [found[0] / "one", found[0] / "two"]
    files = [{path.relative_to(out): path.read_bytes() for path in out.rglob("*.png")} for out in outs]
    assert len(files[0]) == 10 + 5 + 3 * 3 + 5
    assert files[0] == files[1]
    assert len({files[0][Path(way, "00002.png")] for way in WAYS}) == len(WAYS), "tiles and 16 bits matter here"
    one, two = ([*iterate_frames(out / "film.mkv").timed()] for out in outs)  # no two files have an equal identifier
    assert len(one) == len(two) == 24
    for (frame, span), (other, time) in zip(one, two, strict=True):
        assert torch.equal(frame, other)
        assert span == time


def test_ranks_tell_what_one_rank_tells(found: Found) -> None:
    _, one, ranks = found
    assert one["film.mkv"]["doubled"] == 4
    assert "exists already" in one["error"]
    for each in ranks:
        assert each["scores"] == one["scores"]
        assert [each[name] for name in ("film.mkv", "gap", "short")] == [
            one[name] for name in ("film.mkv", "gap", "short")
        ]
        assert each["error"] == one["error"].replace("/one/", "/two/")
