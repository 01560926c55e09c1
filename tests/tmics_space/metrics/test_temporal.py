from __future__ import annotations

import math
import sys

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from torch import Tensor

from nas.errors import ConfigError, DivergedError
from tmics_space.flow import DenseInverseSearch
from tmics_space.metrics.temporal import FlowFunction, farneback, pair_error, tof, visible, warping_error


def photograph(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1).to(dtype) / 255


def panning(frames: int, step: tuple[int, int], size: int = 96) -> Tensor:
    """A camera that moves by `step` pixels (x, y) a frame: what is at p is next at p - step."""
    image, (x, y) = photograph(), step
    corners = [(100 + t * y, 180 + t * x) for t in range(frames)]
    return torch.stack([image[:, top : top + size, left : left + size] for top, left in corners])


def constant(flow: tuple[float, float], size: int = 96) -> Tensor:
    return torch.tensor(flow, dtype=torch.float64).view(1, 2, 1, 1).expand(1, 2, size, size)


def known(clip: Tensor, step: tuple[int, int]) -> FlowFunction:
    """The true flow between any two frames of a `panning` clip."""

    def flow(first: Tensor, second: Tensor) -> Tensor:
        start, end = (next(t for t, frame in enumerate(clip) if frame.equal(image[0])) for image in (first, second))
        return constant(((start - end) * step[0], (start - end) * step[1]), clip.shape[-1])

    return flow


def inside(frame: Tensor, border: int = 8) -> Tensor:
    mask = torch.zeros(1, 1, *frame.shape[-2:], dtype=torch.bool)
    mask[..., border:-border, border:-border] = True
    return mask


def sampled(image: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([map_coordinates(plane, [y, x], order=1, mode="nearest") for plane in image])


def by_the_definition(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    forward: NDArray[np.float64],
    backward: NDArray[np.float64],
) -> tuple[NDArray[np.bool_], float]:
    """The mask and the warping error of one pair (channels, height, width), pixel by pixel."""
    height, width = first.shape[1:]
    y, x = np.mgrid[:height, :width].astype(float)
    returning = sampled(backward, x + forward[0], y + forward[1])
    warped = sampled(second, x + forward[0], y + forward[1])
    mask = np.ones((height, width), bool)
    total = 0.0
    for i in range(height):
        for j in range(width):
            f, b = forward[:, i, j], returning[:, i, j]
            right = forward[:, i, min(j + 1, width - 1)] - f
            below = forward[:, min(i + 1, height - 1), j] - f
            occluded = (f + b) @ (f + b) > 0.01 * (f @ f + b @ b) + 0.5
            boundary = right @ right + below @ below > 0.01 * (f @ f) + 0.002
            mask[i, j] = not occluded and not boundary
            if mask[i, j]:
                difference = first[:, i, j] - warped[:, i, j]
                total += difference @ difference
    return mask, total / mask.sum()


def test_mask_and_error_follow_their_definition() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.random((2, 3, 24, 30))
    ramp = np.linspace(0, 3, 30) + np.zeros((24, 1))
    forward = np.stack([ramp, -0.5 * ramp]) + 0.05 * generator.standard_normal((2, 24, 30))
    backward = -forward + 0.7 * generator.standard_normal((2, 24, 30))
    expected, error = by_the_definition(first, second, forward, backward)
    ours = visible(torch.from_numpy(forward)[None], torch.from_numpy(backward)[None])
    np.testing.assert_array_equal(ours[0, 0].numpy(), expected)
    assert 0.1 < expected.mean() < 0.9
    found = pair_error(
        torch.from_numpy(first)[None], torch.from_numpy(second)[None], torch.from_numpy(forward)[None], ours
    )
    assert found.item() == pytest.approx(error, rel=1e-12)


@pytest.mark.parametrize(
    ("speed", "gap", "seen"),
    [
        (1, 0.70, True),  # 0.490 < 0.01 (1 + 0.3^2) + 0.5 = 0.511
        (1, 0.73, False),  # 0.533 > 0.01 (1 + 0.27^2) + 0.5 = 0.511
        (10, 1.48, True),  # 2.190 < 0.01 (100 + 8.52^2) + 0.5 = 2.226
        (10, 1.50, False),  # 2.250 > 0.01 (100 + 8.5^2) + 0.5 = 2.223
    ],
)
def test_the_threshold_of_occlusion(speed: float, gap: float, seen: bool) -> None:
    for axis in ((1, 0), (0, 1), (-1, 0)):
        forward, backward = constant(axis) * speed, constant(axis) * (gap - speed)
        assert visible(forward, backward).all().item() == seen
        assert visible(forward, backward).any().item() == seen


def test_a_match_that_does_not_return_is_occluded() -> None:
    assert visible(constant((5, -3)), constant((-5, 3))).all()
    assert not visible(constant((5, -3)), constant((5, -3))).any()


@pytest.mark.parametrize("axis", ["x", "y"])
@pytest.mark.parametrize(("slope", "seen"), [(0.044, True), (0.046, False)])
def test_the_threshold_of_a_motion_boundary(axis: str, slope: float, seen: bool) -> None:
    # at a pixel at rest the limit is sqrt(0.002) = 0.0447 pixels a pixel
    ramp = slope * (torch.arange(41, dtype=torch.float64) - 20)
    plane = ramp.expand(41, 41) if axis == "x" else ramp.view(-1, 1).expand(41, 41)
    forward = torch.stack((torch.zeros_like(plane), plane))[None]
    assert visible(forward, torch.zeros_like(forward))[0, 0, 20, 20].item() == seen


def test_point_12_an_integer_motion_has_no_warping_error_inside() -> None:
    first, second = panning(2, (3, -2))[:, None]
    assert pair_error(first, second, constant((-3, 2)), inside(first)).item() == 0
    for wrong in ((3, -2), (-2, 3), (2, -3), (0, 0), (-3, -2)):
        assert pair_error(first, second, constant(wrong), inside(first)).item() > 0.01


def test_point_12_a_subpixel_motion_has_a_warping_error_below_that_of_interpolation() -> None:
    # linear interpolation of A sin(w x) between pixels is off by at most A w^2 / 8, in each of three channels
    amplitude, frequency, step = 0.4, 0.3, 0.4
    x = torch.arange(96, dtype=torch.float64)
    waves = [0.5 + amplitude * torch.sin(frequency * (x - shift)) for shift in (0, step)]
    first, second = (wave.expand(1, 3, 96, 96) for wave in waves)
    bound = 3 * (amplitude * frequency**2 / 8) ** 2
    assert 0 < pair_error(first, second, constant((step, 0)), inside(first)).item() < bound
    assert pair_error(first, second, constant((-step, 0)), inside(first)).item() > 100 * bound


def test_only_what_the_mask_shows_counts() -> None:
    first, second = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    second[..., :2] = 0.5
    second[..., 3] = 1.0
    mask = torch.tensor([True, False, True, False]).expand(1, 1, 4, 4)
    error = pair_error(first, second, torch.zeros(1, 2, 4, 4), mask)
    assert error.item() == pytest.approx((3 * 0.25 + 0) / 2)


def test_the_warping_error_of_a_clip_is_the_mean_over_its_pairs() -> None:
    truth = panning(4, (2, 1), 48)
    output = (truth + 0.05 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0)).double()).clamp(0, 1)
    flow = known(truth, (2, 1))
    each = []
    for t in range(3):
        forward, backward = flow(truth[t : t + 1], truth[t + 1 : t + 2]), constant((2, 1), 48)
        _, error = by_the_definition(output[t].numpy(), output[t + 1].numpy(), forward[0].numpy(), backward[0].numpy())
        each.append(error)
    found = warping_error(output, truth, flow)
    assert found.output == pytest.approx(np.mean(each), rel=1e-12)
    assert found.truth == warping_error(truth, truth, flow).output
    assert found.truth < found.output
    assert "\n" not in found.statement
    assert "E_warp" in found.statement


def test_a_static_clip_is_steady_and_a_flickering_one_is_not() -> None:
    still = panning(1, (0, 0), 48).expand(4, 3, 48, 48)
    bright = torch.tensor([0, 0.1, 0, 0.1], dtype=torch.float64).view(-1, 1, 1, 1)
    found = warping_error(0.8 * still + bright, still, lambda first, second: constant((0, 0), 48))
    assert (found.output, found.truth) == (pytest.approx(3 * 0.01), 0)


def test_outputs_are_clamped_and_empty_pairs_left_out() -> None:
    still = torch.zeros(3, 3, 16, 16, dtype=torch.float64)
    assert warping_error(still - torch.rand(3, 1, 1, 1), still, lambda a, b: constant((0, 0), 16)).output == 0
    nowhere = warping_error(still, still, lambda a, b: constant((5, 0), 16))
    assert math.isnan(nowhere.output)
    assert math.isnan(nowhere.truth)
    moves = iter([5, 5, 0, 0])  # forward and backward do not agree for the first pair, and do for the second
    found = warping_error(still, still, lambda a, b: constant((next(moves), 0), 16))
    assert (found.output, found.truth) == (0, 0)


def test_a_stereo_pair_with_known_disparity() -> None:
    left, right, disparity = skimage.data.stereo_motorcycle()
    first, second = (torch.from_numpy(image).permute(2, 0, 1)[None] / 255 for image in (left, right))
    measured = torch.from_numpy(np.isfinite(disparity))[None, None]
    across = torch.from_numpy(np.nan_to_num(disparity, posinf=0))
    true = torch.stack((-across, torch.zeros_like(across)))[None]
    assert pair_error(first, second, true, measured).item() < 0.02
    assert pair_error(first, second, -true, measured).item() > 0.2
    flow = DenseInverseSearch()
    forward, backward = flow(first, second), flow(second, first)
    mask = visible(forward, backward)
    assert 0.8 < mask.float().mean().item() < 0.95
    # what the mask hides is where the flow is wrong
    wrong = (forward - true).norm(dim=1, keepdim=True)
    assert wrong[mask & measured].mean() < 0.2 * wrong[~mask & measured].mean()
    assert warping_error(torch.cat((first, second)), torch.cat((first, second)), flow).truth < 0.01


def test_farneback_finds_the_motion_in_the_convention_of_warp() -> None:
    first, second = panning(2, (3, -2))[:, None]
    flow = farneback(first, second)
    assert (flow.shape, flow.dtype) == ((1, 2, 96, 96), first.dtype)
    middle = flow[0, :, 20:-20, 20:-20].flatten(1).median(dim=1).values
    torch.testing.assert_close(middle, torch.tensor([-3, 2]).double(), atol=0.1, rtol=0)


def test_tof_is_that_of_opencv_on_the_saved_frames() -> None:
    truth = panning(8, (7, 4), 128)
    output = (truth + 0.1 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    lengths = []
    for t in range(3, 6):  # frames 2..5 of 0..7, so three pairs
        flows = []
        for clip in (output, truth):
            frames = [(255 * clip[i]).round().byte().permute(1, 2, 0).numpy() for i in (t - 1, t)]
            grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
            flows.append(cv2.calcOpticalFlowFarneback(grey[0], grey[1], None, 0.5, 3, 15, 3, 5, 1.2, 0))
        lengths.append(np.sqrt(((flows[0] - flows[1]) ** 2).sum(axis=-1)).mean())
    found = tof(output, truth)
    assert found.output == pytest.approx(np.mean(lengths), rel=1e-5)
    assert found.truth == tof(truth, truth).output == 0
    assert "tOF" in found.statement


def test_tof_does_not_see_two_frames_at_each_end() -> None:
    truth = panning(7, (2, 1), 48)
    output = truth.clone()
    output[[0, 1, 5, 6]] = 0
    assert tof(output, truth).output == 0
    output[2] = 0
    assert tof(output, truth).output > 0


def test_clips_that_cannot_be_compared() -> None:
    clip = torch.rand(6, 3, 16, 16)
    with pytest.raises(ConfigError, match=r"the warping error: .* frames, got 5 and 6"):
        warping_error(clip[:5], clip, farneback)
    with pytest.raises(ConfigError, match=r"the warping error: .* at least 2 frames, got 1"):
        warping_error(clip[:1], clip[:1], farneback)
    with pytest.raises(ConfigError, match=r"tOF: .* at least 6 frames, got 5"):
        tof(clip[:5], clip[:5])
    with pytest.raises(DivergedError, match="tOF: frame 0 of the output must be finite"):
        tof(clip / 0, clip)


def test_farneback_without_opencv_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ConfigError, match=r"pip install 'tmics-nas\[flow\]'"):
        farneback(torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16))
