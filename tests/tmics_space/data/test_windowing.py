"""Windows of frames and views of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nas.errors import ConfigError
from tmics_space.data import temporal_median, window, window_indices, windows
from tmics_space.data.windowing import View, random_view


@pytest.mark.parametrize(
    ("centre", "length", "frames", "expected"),
    [
        (0, 9, 5, [2, 1, 0, 1, 2]),
        (1, 9, 5, [1, 0, 1, 2, 3]),
        (4, 9, 5, [2, 3, 4, 5, 6]),
        (8, 9, 5, [6, 7, 8, 7, 6]),
        (0, 1, 5, [0, 0, 0, 0, 0]),
        (0, 2, 5, [0, 1, 0, 1, 0]),
        (1, 2, 7, [0, 1, 0, 1, 0, 1, 0]),
        (3, 9, 1, [3]),
    ],
)
def test_windows_are_reflected(centre: int, length: int, frames: int, expected: list[int]) -> None:
    assert window_indices(centre, length, frames) == expected
    clip = torch.arange(length)
    assert window(clip, centre, frames).tolist() == expected
    assert list(windows(clip, frames))[centre].tolist() == expected


@pytest.mark.parametrize(("centre", "expected"), [(0, [3, 2, 1, 0, 1, 2]), (4, [1, 2, 3, 4, 5, 6])])
def test_one_more_frame_goes_before(centre: int, expected: list[int]) -> None:
    assert window_indices(centre, 9, before=1) == expected


@given(length=st.integers(2, 12), half=st.integers(0, 8), data=st.data())
def test_reflection_equals_numpys(length: int, half: int, data: st.DataObject) -> None:
    centre = data.draw(st.integers(0, length - 1))
    padded = np.pad(np.arange(length), half, mode="reflect")
    assert window_indices(centre, length, 2 * half + 1) == padded[centre : centre + 2 * half + 1].tolist()


def test_windows_without_a_centre() -> None:
    with pytest.raises(ConfigError, match="window must be odd, got"):
        window_indices(0, 9, 4)
    for centre in (-1, 9):
        with pytest.raises(ConfigError, match=r"centre of a window must .* clip of 9 frames, got"):
            window_indices(centre, 9)


@pytest.mark.parametrize("frames", [1, 3, 5, 7])
def test_the_median_equals_torchs(frames: int) -> None:
    clip = torch.randint(0, 256, (8, 3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = temporal_median(clip, frames)
    assert found.dtype == torch.uint8
    assert torch.equal(found, torch.stack([each.median(0).values for each in windows(clip, frames)]))


def test_the_median_removes_what_is_seen_twice_in_five() -> None:
    clip = torch.full((6, 3, 4, 5), 90, dtype=torch.uint8)
    rainy = clip.clone()
    rainy[2:4, :, 1] = 255
    assert torch.equal(temporal_median(rainy), clip)


def test_a_view_by_hand() -> None:
    clip = torch.arange(4 * 3 * 5 * 6).view(4, 3, 5, 6)
    plain = View(1, 2, 3, 4).of(clip, [0, 1, 3])
    assert torch.equal(plain, clip[[0, 1, 3], :, 1:4, 2:6])
    assert torch.equal(View(1, 2, 3, 4, mirror=True).of(clip, [0, 1, 3]), plain.flip(-1))
    assert torch.equal(View(1, 2, 3, 4, backwards=True).of(clip, [0, 1, 3]), plain.flip(0))


def test_random_views_cover_all_there_is() -> None:
    rng = np.random.default_rng(0)
    views = [random_view(rng, 6, 7, 5) for _ in range(200)]
    assert {(view.top, view.left) for view in views} == {(top, left) for top in range(2) for left in range(3)}
    assert {(view.mirror, view.backwards) for view in views} == {(a, b) for a in (True, False) for b in (True, False)}
    assert {(view.height, view.width) for view in views} == {(5, 5)}
    plain = [random_view(rng, 5, 5, 5, augment=False) for _ in range(20)]
    assert set(plain) == {View(0, 0, 5, 5)}


@pytest.mark.parametrize("crop", [0, 6])
def test_crops_must_fit(crop: int) -> None:
    with pytest.raises(ConfigError, match=f"crop must be from 1 to 5 px .* of 9x5, got {crop}"):
        random_view(np.random.default_rng(0), 5, 9, crop)
