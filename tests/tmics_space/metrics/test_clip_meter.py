from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tmics_space.metrics.clip_meter import RAINY, ClipMeter
from tmics_space.metrics.protocol import evaluate_clip
from tmics_space.metrics.temporal import farneback, warping_error


def clips() -> dict[str, Tensor]:
    """A smooth picture that moves by one pixel a frame, and versions with noise that differs from frame to frame."""
    generator = torch.Generator().manual_seed(1)
    x, y = torch.arange(40.0), torch.arange(36.0)[:, None]
    frames = [(torch.sin((x + t) / 4) * torch.cos(y / 5) * 90 + 128).expand(3, 36, 40) for t in range(5)]
    truth = torch.stack(frames).round().byte()

    def noisy(level: float) -> Tensor:
        return (truth + level * torch.randn(truth.shape, generator=generator)).clamp(0, 255).round().byte()

    return {"truth": truth, RAINY: noisy(40), "good": noisy(4), "same": truth}


def measured(clips: dict[str, Tensor], protocol: str = "y", **arguments: bool) -> dict[str, dict[str, float]]:
    meter = ClipMeter(protocol, farneback)
    for frame in range(len(clips["truth"])):
        versions = {name: clip[frame] for name, clip in clips.items() if name != "truth"}
        meter.add(clips["truth"][frame], versions, **arguments)
    return meter.scores()


@pytest.mark.parametrize("protocol", ["y", "rgb"])
def test_it_agrees_with_the_scores_of_whole_clips(protocol: str) -> None:
    versions = clips()
    found = measured(versions, protocol)
    truth = versions.pop("truth").float() / 255
    for name, clip in versions.items():
        expected = evaluate_clip(protocol, clip.float() / 255, truth)
        assert found[name]["psnr"] == pytest.approx(expected.psnr, abs=1e-5)
        assert found[name]["ssim"] == pytest.approx(expected.ssim, abs=1e-6)
        warped = warping_error(clip.float() / 255, truth, farneback)
        assert found[name]["warping_error"] == pytest.approx(warped.output, rel=1e-5)
    assert list(found) == [RAINY, "good", "same"]


def test_the_ratio_is_one_for_the_input_and_zero_for_the_truth() -> None:
    found = measured(clips())
    assert found[RAINY]["warping_ratio"] == pytest.approx(1)
    assert found["same"]["warping_ratio"] == 0
    assert 0 < found["good"]["warping_ratio"] < 0.1
    steadier = clips()
    steadier["good"] = steadier["truth"][:1].expand_as(steadier["truth"])  # frozen, but the truth's motion is not
    assert measured(steadier)["good"]["warping_ratio"] > found["good"]["warping_ratio"]


def test_frames_that_do_not_follow_are_not_compared_over_time() -> None:
    apart = measured(clips(), follows=False)
    assert math.isnan(apart["good"]["warping_error"])
    assert math.isnan(apart["good"]["warping_ratio"])


def test_without_rainy_frames_there_is_neither_ratio_nor_rain() -> None:
    versions = clips()
    del versions[RAINY]
    assert set(measured(versions)["good"]) == {"psnr", "ssim", "warping_error"}
    meter = ClipMeter("nturain")
    assert meter.add(versions["truth"][0], {"good": versions["good"][0]}, scored=False) == {}
    assert meter.scores() == {}
