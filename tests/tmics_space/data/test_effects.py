"""Windows whose rain, motion, compression and twins are drawn."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nas.errors import ConfigError, InvalidFileError
from nas.files import convert
from tmics_space.data import CameraMotion, Clip, moving_texture, sample, window_indices, write_frames
from tmics_space.data.compression import NO_COMPRESSION, Compression, h264, jpeg
from tmics_space.data.effects import Effects
from tmics_space.data.motion import moving_window, view_grid, window_path
from tmics_space.data.packed import PackedFrames
from tmics_space.data.rainfall import RAIN_PRESETS, DrawnRain, LogNormal, RainMix, WeightedPreset, jittered
from tmics_space.data.sources import Films
from tmics_space.data.twins import find_twins
from tmics_space.data.windowing import View

WET, DRY = (DrawnRain(RainMix(("light25",), dry=dry)) for dry in (0.0, 1.0))
CLEAN = moving_texture(9, 60, 80)


def drawn(effects: Effects, frames: torch.Tensor = CLEAN) -> Clip:
    return Clip("a", "a", frames, effects=effects)


def test_windows_are_functions_of_seed_and_index() -> None:
    motion = CameraMotion(pan=5, share=0.5, parallax=0.2)
    clip = drawn(Effects(WET, motion, 0.5, Compression((60, 95), clean=0.5)))
    batches = [sample([clip], index, 3, crop=24, batch=3) for index in (7, 8, 7)]
    assert batches[0].rainy.shape == batches[0].window.shape == (3, 5, 3, 24, 24)
    assert torch.equal(batches[0].rainy, batches[2].rainy)
    assert torch.equal(batches[0].window, batches[2].window)
    assert not torch.equal(batches[0].rainy, batches[1].rainy)
    assert not torch.equal(batches[0].rainy, sample([clip], 7, 4, crop=24, batch=3).rainy)


def test_without_rain_and_artefacts_both_sides_are_the_film() -> None:
    views = {tuple(window_indices(centre, 9)) for centre in range(9)}
    shades = torch.arange(9, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 30, 30)
    for index in range(10):
        batch = sample([drawn(Effects(DRY), shades)], index, 0, crop=8, batch=1)
        assert torch.equal(batch.rainy, batch.window)
        shown = (batch.window[0, :, 0, 0, 0] * 255).round().int().tolist()
        assert tuple(shown) in views | {each[::-1] for each in views}


def test_rain_falls_down_also_in_windows_played_backwards() -> None:
    """Streaks of one speed, on black: the next frame is this one, that much lower."""
    layer = RAIN_PRESETS.find("light25").layers[2]
    kept = {
        "density": 300,
        "length": [20, 20],
        "width": 3,
        "speed": 9,
        "brightness": {"type": "uniform", "low": 1, "high": 1},
    }
    preset = {
        "layers": [kept],
        "composition": "additive",
        "coherence": 1,
        "clip_angle": 0,
        "streak_angle": 0,
        "gust": 0,
    }
    rain = DrawnRain(convert({"mix": [{"preset": preset}]}, RainMix, "rain"))
    assert layer.speed is None
    for index in range(4):
        (window,) = sample([drawn(Effects(rain), CLEAN * 0)], index, 0, crop=60, batch=1).rainy
        torch.testing.assert_close(window[1:, :, 40:], window[:-1, :, 31:-9], atol=1 / 255, rtol=0)
        assert window.max() > 0.9


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_shares_of_dry_windows_twins_and_compressed_truth(share: float) -> None:
    noise = torch.randint(0, 256, (9, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    rain = DrawnRain(RainMix(("complex25",), dry=share))
    seen = np.zeros(3)
    for seed in range(100):
        rng = np.random.default_rng(seed)
        view, around = View(0, 0, 16, 16), [2, 3, 4, 5, 6]
        rainy, clean = Effects(rain).window(noise, around, view, rng)
        _, doubled = Effects(DRY, twins=share).window(noise, around, view, rng)
        _, written = Effects(DRY, compression=Compression((60, 60), clean=share)).window(noise, around, view, rng)
        twins = sum(bool(torch.equal(*doubled[at : at + 2])) for at in range(4))
        assert twins <= 1
        seen += [torch.equal(rainy, clean), twins, not torch.equal(written, noise[around])]
    np.testing.assert_allclose(seen / 100, share, atol=4 * math.sqrt(share * (1 - share) / 100))


def test_a_mixture_has_its_weights() -> None:
    mix = DrawnRain(RainMix(("ntu", WeightedPreset("light25", 3.0))))
    rng = np.random.default_rng(0)
    count = sum(mix.draw(rng) == RAIN_PRESETS.find("light25") for _ in range(400))
    assert count / 400 == pytest.approx(0.75, abs=4 * math.sqrt(0.75 * 0.25 / 400))


def test_jitter_has_its_ranges() -> None:
    preset = convert(
        {"layers": [{"density": 100, "length": [10, 20], "width": 2, "speed": 10,
                     "brightness": {"type": "lognormal", "median": 0.2, "sigma": 0.5, "cap": 0.9}}],
         "composition": "alpha", "coherence": 0.6, "airlight": 0.8, "clip_angle": 4},
        type(RAIN_PRESETS.find("ntu")), "rain",
    )  # fmt: skip
    rng = np.random.default_rng(0)
    assert jittered(preset, 0, rng) is preset
    rains = [jittered(preset, 0.3, rng) for _ in range(300)]
    laws = [each.layers[0].brightness for each in rains]
    found = {
        "density": ([each.layers[0].density / 100 for each in rains], 0.6),
        "length": ([each.layers[0].length[0] / 10 for each in rains], 0.45),
        "width": ([each.layers[0].width / 2 for each in rains], 0.3),
        "speed": ([(each.layers[0].speed or 0) / 10 for each in rains], 0.75),
        "brightness": ([law.median / 0.2 for law in laws if isinstance(law, LogNormal)], 0.39),
        "angle": ([each.clip_angle / 4 for each in rains], 0.6),
    }
    for name, (factors, bound) in found.items():
        logs = np.log(factors)
        assert np.abs(logs).max() <= bound + 1e-9, name
        assert np.std(logs) == pytest.approx(bound / math.sqrt(3), rel=0.15), name
    assert 0.3 <= min(each.coherence for each in rains) < 0.35 < 0.85 < max(each.coherence for each in rains) <= 0.9
    assert all(each.layers[0].length[1] == pytest.approx(2 * each.layers[0].length[0]) for each in rains)
    assert jittered(RAIN_PRESETS.find("light25"), 1, rng).coherence == 0  # no streaks live on that did not


def test_jpeg_is_that_of_each_frame() -> None:
    frames = moving_texture(3, 33, 47)
    found = jpeg(frames, 70)
    for frame, expected in zip(found, frames, strict=True):
        assert torch.equal(frame, jpeg(expected[None], 70)[0])
    errors = [(jpeg(frames, quality).int() - frames.int()).abs().float().mean() for quality in (40, 70, 95)]
    assert errors[0] > errors[1] > errors[2] > 0


def test_jpeg_greys_thin_streaks(tmp_path: Path) -> None:
    """Colours at half the size spread a red line over two columns, as a file on disk shows."""
    line = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    line[:, 0, :, 8] = 255
    Image.fromarray(line[0].permute(1, 2, 0).numpy()).save(tmp_path / "a.jpg", quality=90, subsampling=2)
    with Image.open(tmp_path / "a.jpg") as image:
        expected = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    found = jpeg(line, 90)[0]
    assert (found.int() - expected.int()).abs().max() <= 2
    assert found[0, 16, 8] < 200


def test_h264_gives_the_film_back() -> None:
    pytest.importorskip("av")
    frames = moving_texture(5, 33, 47)
    errors = [(h264(frames, factor).int() - frames.int()).abs().float().mean() for factor in (10, 40)]
    assert errors[0] < 3 < errors[1]
    assert len({h264(frames, 10).numpy().tobytes() for _ in range(10)}) == 1
    kinds = Compression((90, 90), (10, 10))
    found = {kinds.apply(frames, frames, np.random.default_rng(seed))[0].numpy().tobytes() for seed in range(20)}
    assert found == {each.numpy().tobytes() for each in (jpeg(frames, 90), h264(frames, 10))}
    assert not NO_COMPRESSION


# --- motion ---


@pytest.mark.parametrize("seed", range(20))
def test_window_poses_stay_inside_and_within_their_bounds(seed: int) -> None:
    motion = CameraMotion(pan=20, zoom=0.2, rotation=10, period=60)
    poses = window_path(5, (200, 300), (64, 80), motion, np.random.default_rng(seed))
    for pose in poses:
        x, y = view_grid(pose, (64, 80)).unbind(-1)
        assert min(x.min(), y.min()) >= -1e-9
        assert x.max() <= 299 + 1e-9
        assert y.max() <= 199 + 1e-9
    steps = poses.diff(dim=0)
    assert steps[:, :2].norm(dim=1).max() <= 20 * 1.4
    torch.testing.assert_close(steps[0, :2], steps[-1, :2])  # even
    assert steps[:, 3].abs().max() <= math.radians(10) * 2 * math.pi * 3 / 60


def test_moving_windows_sample_where_their_grid_says() -> None:
    y, x = torch.meshgrid(torch.arange(80.0), torch.arange(100.0), indexing="ij")
    ramp = torch.stack([2 * x, 2 * y, x + y]).to(torch.uint8)[None]
    motion = CameraMotion(pan=3, rotation=8)
    views = moving_window(ramp, [0] * 5, (30, 40), motion, np.random.default_rng(1))
    poses = window_path(5, (80, 100), (30, 40), motion, np.random.default_rng(1))
    for view, pose in zip(views, poses, strict=True):
        right, down = view_grid(pose, (30, 40)).unbind(-1)
        assert (view - torch.stack([2 * right, 2 * down, right + down])).abs().max() <= 0.52


def test_parallax_spares_the_centre_and_is_bounded() -> None:
    x = torch.arange(200.0).expand(1, 3, 100, 200).to(torch.uint8)
    plain, deep = (
        moving_window(x, [0] * 5, (32, 32), CameraMotion(8, 0, 0, parallax=each), np.random.default_rng(3)).int()
        for each in (0.0, 0.5)
    )
    way = (plain - plain[2]).abs().amax((1, 2, 3))
    assert torch.equal(plain[2], deep[2])
    for index in (0, 4):
        change = (deep[index] - plain[index]).abs().max()
        assert 0 < change <= 0.5 * way[index] + 1


def test_a_photograph_too_small_for_the_crop_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'a': .*crop must be .* got 64"):
        sample([drawn(Effects(WET, CameraMotion()), CLEAN[:1])], 0, 0, crop=64)
    with pytest.raises(ConfigError, match=r"moving views of 50x200 must be larger, got 80x60"):
        moving_window(CLEAN[:1], [0], (200, 50), CameraMotion(), np.random.default_rng(1))


# --- films ---


@pytest.mark.parametrize("shape", [(2, 3, 7, 9), (3, 3, 6, 8)])
def test_packed_frames_are_close_and_grey_ones_equal(shape: tuple[int, ...]) -> None:
    smooth = moving_texture(shape[0], 4 * shape[2], 4 * shape[3])
    packed = PackedFrames.pack(smooth)
    assert packed.shape == smooth.shape
    size = packed.light.numel() + packed.colour.numel()
    assert size == pytest.approx(smooth.numel() / 2, rel=0.05)
    grey = smooth[:, :1].expand(-1, 3, -1, -1)
    assert torch.equal(PackedFrames.pack(grey)[:], grey)
    blocks = smooth[..., ::2, ::2].repeat_interleave(2, 2).repeat_interleave(2, 3)  # colours at half the size
    assert (PackedFrames.pack(blocks)[:].int() - blocks.int()).abs().max() <= 3
    for top, left, height, width in ((0, 0, 5, 6), (1, 3, 5, 6), (2, 1, 4, 5)):
        part = packed.region([1, 0], top, left, height, width)
        assert torch.equal(part, packed[:][[1, 0], :, top : top + height, left : left + width])


def test_twins_are_found_and_dropped() -> None:
    film = moving_texture(12, 40, 50)
    doubled = film.repeat_interleave(2, 0)
    assert find_twins(doubled) == list(range(1, 24, 2))
    telecine = film[[0, 0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 8, 9, 10, 11]]
    assert find_twins(telecine) == [1, 6, 11]
    noise = torch.randint(-1, 2, doubled.shape, generator=torch.Generator().manual_seed(0))
    again = (doubled.int() + noise).clamp(0, 255).to(torch.uint8)  # coded again
    assert find_twins(again) == list(range(1, 24, 2))
    assert find_twins(film) == []
    assert find_twins(film[:1]) == []
    still = (film[:1].int() + noise[:12]).clamp(0, 255).to(torch.uint8)
    assert find_twins(still) == []
    assert find_twins(film[:1].expand(8, -1, -1, -1)) == []  # a frozen film is no film with twins


@pytest.fixture
def films(tmp_path: Path) -> Path:
    for seed, name in enumerate(("one", "two")):
        with write_frames(tmp_path / name) as write:
            for frame in moving_texture(6, 60, 80, seed).repeat_interleave(2, 0):
                write(frame)
    with write_frames(tmp_path / "three.jpg") as write:
        write(moving_texture(1, 60, 80, 3)[0])
    return tmp_path


def test_films_are_a_folder_a_list_or_names(films: Path) -> None:
    given: dict[str, Any] = {"rain": {"mix": ["ntu"]}, "motion": {}}
    folder, listed, named = (
        convert({"films": each, **given, **root}, Films, "task").load(0)
        for each, root in (
            (str(films), {}),
            (["one", "*o", "three.jpg"][1:], {"root": str(films)}),
            ({"a": "one", "b": "three.jpg"}, {"root": str(films)}),
        )
    )
    assert [(clip.name, len(clip.frames)) for clip in folder] == [("one", 6), ("three", 1), ("two", 6)]
    assert [clip.name for clip in listed] == ["two", "three"]
    assert [clip.name for clip in named] == ["a", "b"]
    ((rainy, clean),) = folder[1].versions()
    assert rainy.shape == clean.shape == (60, 3, 40, 53)
    assert not torch.equal(clean[0], clean[30])
    ((again, _),) = folder[1].versions()
    assert torch.equal(rainy, again)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"films": ["*.mkv"]}, ConfigError, r"films .* got none for .*\*\.mkv"),
        ({"films": ["one", "one"]}, ConfigError, "names of films must be unique, got 'one'"),
        ({"films": "nowhere"}, InvalidFileError, "nowhere: no such folder"),
        ({"motion": None}, ConfigError, r"three\.jpg: a photograph needs 'motion'"),
        ({"motion": None, "rain": "ntu"}, ConfigError, r"three\.jpg: a photograph needs 'motion'"),
        ({"rain": "ntu", "size": [200, 200], "films": ["three.jpg"]}, ConfigError, r"three\.jpg: .* larger, got 80x60"),
        ({"rain": {"mix": []}}, InvalidFileError, "mix: "),
        ({"rain": {"mix": ["ntv"]}}, InvalidFileError, "'ntv' .*did you mean 'ntu'"),
        ({"rain": {"mix": [{"preset": {"layers": []}}]}}, InvalidFileError, "mix"),
        ({"jpeg": [60, 99]}, InvalidFileError, r"jpeg\[1\]"),
        ({"jpeg": [95, 60]}, InvalidFileError, r"jpeg.* got \[95, 60\]"),
        ({"twins": 1.5}, InvalidFileError, "twins must be at most 1, got 1.5"),
        ({"rain": "ntu", "twins": 0.5}, InvalidFileError, "'twins' .* got 0.5"),
    ],
)
def test_films_that_are_refused(films: Path, change: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {"films": ["one", "three.jpg"], "root": str(films), "rain": {"mix": ["ntu"]}, "motion": {}, **change}
    with pytest.raises(error, match=message):
        convert(given, Films, "task").load(0)
