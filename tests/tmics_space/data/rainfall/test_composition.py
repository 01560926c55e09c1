"""Rain over frames."""

from __future__ import annotations

import time

import msgspec
import numpy as np
import pytest
import torch

from nas.errors import ConfigError, UnknownNameError
from tmics_space.data.rainfall import RAIN_PRESETS, Layer, RainPreset, Uniform, rain, rain_frames
from tmics_space.data.rainfall.composition import compose
from tmics_space.data.texture import moving_texture

CLIP = moving_texture(4, 60, 80)
MOVING = msgspec.structs.replace(RAIN_PRESETS.find("light25"), coherence=0.7)


@pytest.mark.parametrize("preset", [*RAIN_PRESETS.names(), MOVING], ids=[*RAIN_PRESETS.names(), "coherent"])
def test_point_14_equal_seeds_give_equal_bytes(preset: str | RainPreset) -> None:
    rainy = rain(CLIP, preset, 3)
    assert rainy.shape == CLIP.shape
    assert rainy.dtype == torch.uint8
    assert torch.equal(rainy, rain(CLIP, preset, 3))
    assert not torch.equal(rainy, rain(CLIP, preset, 4))
    assert torch.equal(rainy[:2], rain(CLIP[:2], preset, 3))  # what follows does not matter
    assert torch.equal(rainy, torch.stack(list(rain_frames(iter(CLIP), preset, 3))))
    assert not torch.equal(rain(CLIP[[0, 0]], preset, 3)[0], rain(CLIP[[0, 0]], preset, 3)[1])  # and it falls


@pytest.mark.parametrize(
    ("composition", "expected"),
    [
        ("additive", 0.4 + 0.3),
        ("screen", 1 - (1 - 0.4) * (1 - 0.3)),
        ("alpha", 0.4 + 0.3 * (0.8 - 0.4)),
        ("occlusion", (1 - 0.3) * (0.4 + 0.2) + 0.3 * 0.8),
    ],
)
def test_compositions_and_veil_by_hand(composition: str, expected: float) -> None:
    layers = [np.full((2, 2), value, np.float32) for value in (0.1, 0.2, 0.3)]  # max of far and mid .2, near .3
    background = np.full((3, 2, 2), 0.4, np.float32)
    preset = msgspec.convert({"layers": [LAYER] * 3, "composition": composition, "airlight": 0.8}, RainPreset)
    rng = np.random.default_rng(0)
    np.testing.assert_allclose(compose(background, layers, preset, rng), expected, rtol=1e-6)
    veiled = msgspec.structs.replace(preset, transmission=0.75)
    np.testing.assert_allclose(compose(background, layers, veiled, rng), 0.75 * expected + 0.25 * 0.8, rtol=1e-6)


LAYER = {"density": 100, "length": [10, 20], "width": 2, "brightness": {"type": "uniform", "low": 0.1, "high": 0.2}}


def test_without_streaks_frames_keep_their_bytes() -> None:
    dry = RainPreset((Layer(0, (10, 20), 2, Uniform(0.1, 0.2)),), "screen")
    every = torch.arange(256, dtype=torch.uint8).expand(1, 3, 4, 256)
    assert torch.equal(rain(every, dry, 0), every)


def test_specks_are_few_small_and_faint() -> None:
    specked = RainPreset((Layer(0, (10, 20), 2, Uniform(0.1, 0.2)),), "additive", sparkle=1000)
    grey = torch.full((1, 3, 200, 300), 128, dtype=torch.uint8)
    change = rain(grey, specked, 0).int() - 128
    assert (change[:, 0] == change[:, 2]).all()
    assert 60 * 0.5 < (change[0, 0] != 0).sum() < 60 * 3  # 60 specks of 1 to 3 px, some too faint for 8 bits
    assert change.min() < 0 < change.max()
    assert change.abs().max() < 255 * 0.05 * 4


def test_rain_is_grey_and_brightens() -> None:
    change = rain(CLIP, "ntu", 0).int() - CLIP.int()
    assert change.min() >= 0
    assert change.max() > 50


def test_a_frame_of_light_rain_is_quick() -> None:
    clip = moving_texture(3, 480, 640)
    start = time.process_time()
    rain(clip, "light25", 0)
    assert (time.process_time() - start) / len(clip) < 0.15  # seconds; about 0.01 on a laptop's core


def test_what_rain_cannot_fall_on() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'light25'"):
        rain(CLIP, "light", 0)
    with pytest.raises(ConfigError, match=r"got \(4, 3, 60, 80\) torch\.float32"):
        rain(CLIP.float(), "ntu", 0)
    with pytest.raises(ConfigError, match=r"got \(3, 60, 80\) torch\.uint8"):
        rain(CLIP[0], "ntu", 0)
    with pytest.raises(ConfigError, match="seed of the rain must be at least 0, got -1"):
        rain(CLIP, "ntu", -1)
    assert list(rain_frames([], "ntu", 0)) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": []}, r"length >= 1 .*\$\.layers"),
        ({"transmission": 1.5}, r"<= 1.*\$\.transmission"),
        ({"composition": "minus"}, r"'minus' .*\$\.composition"),
        ({"densty": 3}, "unknown field `densty`"),
        ({"layers": [{**LAYER, "width": 0}]}, r"> 0.*\$\.layers\[0\]\.width"),
    ],
)
def test_presets_from_files_are_strict(change: dict[str, object], message: str) -> None:
    good = {"layers": [LAYER], "composition": "screen"}
    msgspec.convert(good, RainPreset)
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert({**good, **change}, RainPreset)
