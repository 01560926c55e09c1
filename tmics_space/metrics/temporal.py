"""The steadiness of a restored clip over time: the warping error and tOF.

A blurred or frozen clip has a low warping error. So report it beside PSNR and the warping error of the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from math import nan
from typing import TypeAlias

import msgspec
import torch
from torch import Tensor

from nas.errors import MissingPackageError
from tmics_space.flow import warp
from tmics_space.metrics.clip_checks import check_clips

FlowFunction: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Maps (first, second), images `(batch, 3, height, width)` in [0, 1], to a flow `(batch, 2, height, width)` in
pixels (x, y): pixel p of `first` corresponds to pixel p + flow(p) of `second`."""

WARPING_ERROR = (
    "E_warp (Lai et al. 2018): squared RGB norm in [0, 1] between a frame and the next one warped onto it"
    " by the truth's flow, where forward and backward flow agree, off motion boundaries; all frames"
)
TOF = (
    "tOF (TecoGAN): mean length in pixels of the difference of Farneback flows on 8-bit grey frames;"
    " 2 frames dropped at each end"
)


class TemporalScore(msgspec.Struct, frozen=True):
    """A score of the output (lower is steadier), the score of the truth, and a statement of the method."""

    output: float
    truth: float
    statement: str


def warping_error(output: Tensor, truth: Tensor, flow: FlowFunction) -> TemporalScore:
    """Compute E_warp, the mean over pairs of consecutive frames of sum M ||O_t - W(O_t+1)||^2 / sum M.

    W warps backward by the flow from t to t + 1, and M is `visible`. Both come from the truth, so all methods are
    measured along the same motion. Positions outside the frame are clamped to its border. Pairs without visible pixels
    are excluded.

    Args:
        output: the restored clip, `(frames, 3, height, width)` in [0, 1].
        truth: the true clip, of the same shape.
        flow: computes the flow between frames.

    Returns:
        The scores of output and truth; nan if no pair has visible pixels.

    Raises:
        ConfigError: clips differ in shape or have fewer than 2 frames.
        DivergedError: the output is not finite.

    References:
        Lai et al., "Learning Blind Video Temporal Consistency", ECCV 2018 (warping error).
    """
    check_clips(output, truth, least=2, what="the warping error")
    errors = []
    with torch.no_grad():
        for restored, true in zip(_pairs(output.clamp(0, 1)), _pairs(truth), strict=True):
            forward, backward = flow(*true), flow(*reversed(true))
            mask = visible(forward, backward)
            if mask.any():
                errors.append([pair_error(*pair, forward, mask).item() for pair in (restored, true)])
    ours, truths = (sum(e) / len(e) for e in zip(*errors, strict=True)) if errors else (nan, nan)
    return TemporalScore(ours, truths, WARPING_ERROR)


def pair_error(first: Tensor, second: Tensor, forward: Tensor, mask: Tensor) -> Tensor:
    """Compute sum M ||first - W(second)||^2 / sum M, a scalar.

    Args:
        first: images, `(batch, channels, height, width)`.
        second: images of the same shape.
        forward: the flow from `first` to `second`, `(batch, 2, height, width)` in pixels.
        mask: M, boolean `(batch, 1, height, width)`.
    """
    squared = (first - warp(second, forward)).square().sum(dim=1, keepdim=True)
    return (squared * mask).sum() / mask.sum()


def visible(forward: Tensor, backward: Tensor) -> Tensor:
    """Mark the pixels outside occlusions and motion boundaries, at which the flow is reliable.

    A pixel is occluded if ||w_f + W(w_b)||^2 > 0.01 (||w_f||^2 + ||W(w_b)||^2) + 0.5. It is on a motion boundary if
    ||grad u||^2 + ||grad v||^2 > 0.01 ||w_f||^2 + 0.002, by forward differences. W(w_b) is the backward flow, warped
    by the forward flow.

    Args:
        forward: w_f = (u, v), `(batch, 2, height, width)` in pixels.
        backward: w_b, of the same shape.

    Returns:
        A boolean mask, `(batch, 1, height, width)`.

    References:
        Ruder et al., GCPR 2016; Lai et al., ECCV 2018.
    """
    returning = warp(backward, forward)
    speed = _squared(forward)
    occluded = _squared(forward + returning) > 0.01 * (speed + _squared(returning)) + 0.5
    across = torch.diff(forward, dim=3, append=forward[..., -1:])
    down = torch.diff(forward, dim=2, append=forward[:, :, -1:])
    boundary = _squared(across) + _squared(down) > 0.01 * speed + 0.002
    return ~(occluded | boundary)


def tof(output: Tensor, truth: Tensor) -> TemporalScore:
    """Compute tOF: the mean length in pixels of the difference between true and restored flows of consecutive frames.

    The flows are `farneback`; 2 frames are dropped at each end. The authors' script also cuts off borders.

    Args:
        output: the restored clip, `(frames, 3, height, width)` in [0, 1].
        truth: the true clip, of the same shape.

    Returns:
        The score; that of the truth is 0.

    Raises:
        ConfigError: clips differ in shape or have fewer than 6 frames.
        DivergedError: the output is not finite.
        MissingPackageError: OpenCV is not installed.

    References:
        Chu et al., "TecoGAN", ACM TOG 39(4), 2020.
    """
    check_clips(output, truth, least=6, what="tOF")
    difference = [
        (farneback(*true) - farneback(*ours)).norm(dim=1).mean().item()
        for true, ours in zip(_pairs(truth[2:-2]), _pairs(output[2:-2]), strict=True)
    ]
    return TemporalScore(sum(difference) / len(difference), 0.0, TOF)


def farneback(first: Tensor, second: Tensor) -> Tensor:
    """Compute OpenCV's dense flow (Farneback, 2003) with TecoGAN's parameters on grey 8-bit frames.

    Args:
        first: images, `(batch, 3, height, width)` in [0, 1].
        second: images of the same shape.

    Returns:
        The flow, `(batch, 2, height, width)` in pixels (see `FlowFunction`).

    Raises:
        MissingPackageError: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingPackageError("Farneback's flow needs OpenCV", "flow") from error
    flows = []
    for pair in zip(first.detach(), second.detach(), strict=True):
        frames = ((image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy() for image in pair)
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
        found = cv2.calcOpticalFlowFarneback(  # type: ignore[call-overload]
            *grey, None, pyr_scale=0.5, levels=3, winsize=15, iterations=3, poly_n=5, poly_sigma=1.2, flags=0
        )
        flows.append(torch.from_numpy(found).permute(2, 0, 1))
    return torch.stack(flows).to(first)


def _pairs(clip: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Iterate over pairs of consecutive frames, `(1, 3, height, width)` each."""
    return pairwise(clip.unsqueeze(1).unbind())


def _squared(flow: Tensor) -> Tensor:
    return flow.square().sum(dim=1, keepdim=True)
