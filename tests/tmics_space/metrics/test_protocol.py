from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from nas.errors import ConfigError, DivergedError, UnknownNameError
from tmics_space.metrics.image import mean_psnr
from tmics_space.metrics.protocol import (
    PROTOCOLS,
    ClipScores,
    Protocol,
    evaluate_clip,
    find_protocol,
)


def clips(frames: int = 7, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(frames, 3, 16, 18, generator=generator)
    noise = torch.randn(frames, 3, 16, 18, generator=generator)
    spread = torch.linspace(0.05, 0.2, frames).view(-1, 1, 1, 1)  # every frame scores differently
    return truth + spread * noise, truth


def scores(psnr: float, how: str = "y") -> ClipScores:
    return ClipScores(psnr, 0.5, (0,), (psnr,), (0.5,), how, PROTOCOLS[how].statement)


def by_scikit_image(how: Protocol, output: Tensor, truth: Tensor) -> tuple[list[float], list[float]]:
    psnrs, ssims = [], []
    for a, b in zip(output.double().clamp(0, 1), truth.double(), strict=True):
        a, b = (image.permute(1, 2, 0).numpy() for image in (a, b))
        if how.channels == "y":
            a, b = rgb2ycbcr(a)[..., :1], rgb2ycbcr(b)[..., :1]
        else:
            a, b = a * 255, b * 255
        if how.rounded:
            a, b = np.rint(a), np.rint(b)
        psnrs.append(peak_signal_noise_ratio(b, a, data_range=255))
        ssims.append(
            structural_similarity(
                a,
                b,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
                data_range=255,
                channel_axis=-1,
            )
        )
    return psnrs, ssims


@pytest.mark.parametrize("name", PROTOCOLS)
def test_point_11_every_protocol_agrees_with_scikit_image(name: str) -> None:
    output, truth = clips()
    how = find_protocol(name)
    found = evaluate_clip(name, output, truth)
    psnrs, ssims = by_scikit_image(how, output, truth)
    scored = range(2, 5) if name in ("tmics", "nturain") else range(7)
    assert found.frames == tuple(scored)
    assert found.frame_psnr == pytest.approx([psnrs[i] for i in scored], abs=1e-9)
    assert found.frame_ssim == pytest.approx([ssims[i] for i in scored], abs=1e-9)
    assert found.psnr == pytest.approx(np.mean(found.frame_psnr))
    assert found.ssim == pytest.approx(np.mean(found.frame_ssim))
    assert (found.protocol, found.statement) == (name, how.statement)


def test_protocols_differ_and_say_so() -> None:
    output, truth = clips(31)
    found = [evaluate_clip(name, output, truth) for name in PROTOCOLS]
    assert len({clip.psnr for clip in found}) == len({clip.statement for clip in found}) == len(PROTOCOLS)
    assert evaluate_clip("tmics", output, truth).frames == tuple(range(2, 29))  # 3..29 of 31, from 1
    assert all("\n" not in how.statement for how in PROTOCOLS.values())


def test_a_clip_is_clamped_before_it_is_scored() -> None:
    _, truth = clips()
    beyond = torch.where(truth.round() == 1, 3.0, -2.0)
    assert evaluate_clip("rgb", beyond, truth) == evaluate_clip("rgb", truth.round(), truth)


def test_a_perfect_clip_scores_infinity_and_one() -> None:
    _, truth = clips()
    found = evaluate_clip("y", truth, truth)
    assert found.psnr == math.inf
    assert found.ssim == pytest.approx(1)


def test_a_frame_that_equals_its_truth_is_left_out_of_the_mean_and_counted() -> None:
    output, truth = clips()
    for frame in (1, 4):
        output[frame] = truth[frame]
    found = evaluate_clip("y", output, truth)
    assert [frame for frame, value in zip(found.frames, found.frame_psnr, strict=True) if value == math.inf] == [1, 4]
    assert found.equal_frames == 2
    psnrs, _ = by_scikit_image(find_protocol("y"), output[[0, 2, 3, 5, 6]], truth[[0, 2, 3, 5, 6]])
    assert found.psnr == pytest.approx(np.mean(psnrs), abs=1e-9)
    assert found.ssim == pytest.approx(np.mean(found.frame_ssim))  # whose best is 1
    assert evaluate_clip("y", truth, truth).equal_frames == 7
    assert mean_psnr([30.0, math.inf, 20.0]) == 25
    assert mean_psnr([math.inf]) == math.inf


def test_an_unknown_protocol_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown metric protocol 'nturian' \(did you mean 'nturain'"):
        evaluate_clip("nturian", *clips())


@pytest.mark.parametrize(
    ("output", "truth", "message"),
    [
        ((5, 3, 16, 16), (6, 3, 16, 16), "frames, got 5 and 6"),
        ((5, 3, 16, 16), (5, 3, 16, 18), "one size, got 16x16 and 16x18"),
        ((5, 1, 16, 16), (5, 1, 16, 16), r"must be floating point \(frames, 3, height, width\)"),
        ((3, 16, 16), (3, 16, 16), r"must be floating point \(frames, 3, height, width\)"),
        ((4, 3, 16, 16), (4, 3, 16, 16), "protocol 'tmics': .* at least 5 frames, got 4"),
        ((5, 3, 8, 16), (5, 3, 8, 16), "at least 11x11 pixels, got 8x16"),
    ],
)
def test_clips_that_cannot_be_compared(output: tuple[int], truth: tuple[int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate_clip("tmics", torch.rand(output), torch.rand(truth))


def test_an_output_that_is_not_finite_is_no_score() -> None:
    output, truth = clips()
    output[3, 0, 0, 0] = torch.nan
    with pytest.raises(DivergedError, match="frame 3 of the output must be finite"):
        evaluate_clip("y", output, truth)
