"""How steady a restored clip is over time: the warping error and tOF.

A blurred or frozen clip does well on the warping error: show it beside PSNR and the truth's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from math import nan
from typing import TypeAlias

import msgspec
import torch
from torch import Tensor

from nas.errors import ConfigError
from tmics_space.flow import warp
from tmics_space.metrics.clips import check_clips

FlowFunction: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(first, second), images (batch, 3, height, width) in [0, 1], to the flow (batch, 2, height, width) in
pixels (x, y) such that first at p shows what second shows at p + flow(p)."""

WARPING_ERROR = (
    "E_warp (Lai et al. 2018): squared RGB norm in [0, 1] between a frame and the next one warped onto it"
    " by the truth's flow, where forward and backward flow agree, off motion boundaries; all frames"
)
TOF = (
    "tOF (TecoGAN): mean length in pixels of the difference of Farneback flows on 8-bit grey frames;"
    " 2 frames dropped at each end"
)


class TemporalScore(msgspec.Struct, frozen=True):
    """A score of the output (lower is steadier), the truth's own, and how it was taken."""

    output: float
    truth: float
    statement: str


def warping_error(output: Tensor, truth: Tensor, flow: FlowFunction) -> TemporalScore:
    """E_warp of Lai et al. (ECCV 2018) of clips (frames, 3, height, width) in [0, 1].

    The mean over pairs of consecutive frames of sum M ||O_t - W(O_t+1)||^2 / sum M. W warps backward by the
    flow from t to t + 1, M is `visible`; both come from the truth, so every method is measured along the same
    motion. A pair that is nowhere visible is left out (nan if all are). Pixels whose match leaves the frame
    meet the replicated edge. Raises ConfigError for clips that differ in shape or have fewer than 2 frames.
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
    """sum M ||first - W(second)||^2 / sum M over images (batch, channels, height, width); a scalar.

    `forward` is the flow from first to second, `mask` (M) boolean (batch, 1, height, width).
    """
    squared = (first - warp(second, forward)).square().sum(dim=1, keepdim=True)
    return (squared * mask).sum() / mask.sum()


def visible(forward: Tensor, backward: Tensor) -> Tensor:
    """Where a flow can be trusted, off occlusions and motion boundaries: flows (batch, 2, height, width) to
    boolean (batch, 1, height, width).

    Occluded where ||w_f + W(w_b)||^2 > 0.01 (||w_f||^2 + ||W(w_b)||^2) + 0.5, W(w_b) being the backward flow
    at the pixel's match; a motion boundary where ||grad u||^2 + ||grad v||^2 > 0.01 ||w_f||^2 + 0.002, by
    forward differences (Ruder et al., GCPR 2016; Lai et al., ECCV 2018).
    """
    returning = warp(backward, forward)
    speed = _squared(forward)
    occluded = _squared(forward + returning) > 0.01 * (speed + _squared(returning)) + 0.5
    across = torch.diff(forward, dim=3, append=forward[..., -1:])
    down = torch.diff(forward, dim=2, append=forward[:, :, -1:])
    boundary = _squared(across) + _squared(down) > 0.01 * speed + 0.002
    return ~(occluded | boundary)


def tof(output: Tensor, truth: Tensor) -> TemporalScore:
    """tOF of TecoGAN (Chu et al., ACM TOG 39(4), 2020) of clips (frames, 3, height, width) in [0, 1].

    The mean length, in pixels, of the difference between the flows (`farneback`) of consecutive true and of
    consecutive restored frames, 2 frames dropped at each end; the authors' script also cuts off borders. Raises
    ConfigError for clips that differ in shape or have fewer than 6 frames, or without OpenCV.
    """
    check_clips(output, truth, least=6, what="tOF")
    difference = [
        (farneback(*true) - farneback(*ours)).norm(dim=1).mean().item()
        for true, ours in zip(_pairs(truth[2:-2]), _pairs(output[2:-2]), strict=True)
    ]
    return TemporalScore(sum(difference) / len(difference), 0.0, TOF)


def farneback(first: Tensor, second: Tensor) -> Tensor:
    """OpenCV's dense flow (Farneback 2003) with TecoGAN's parameters: a `FlowFunction`.

    Frames are rounded to 8 bits and turned grey first. Raises ConfigError without OpenCV.
    """
    try:
        import cv2
    except ImportError as error:
        raise ConfigError("Farneback's flow needs OpenCV: pip install 'tmics-nas[flow]'") from error
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
    """Consecutive frames, each (1, 3, height, width)."""
    return pairwise(clip.unsqueeze(1).unbind())


def _squared(flow: Tensor) -> Tensor:
    return flow.square().sum(dim=1, keepdim=True)
