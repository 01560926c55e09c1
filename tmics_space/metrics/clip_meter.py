"""Scores of several restored versions of one clip, frame by frame and in constant memory."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from tmics_space.metrics.image import mean_psnr
from tmics_space.metrics.protocol import Protocol, find_protocol, score_frame
from tmics_space.metrics.rain_error import RainError, rain_mask, split_error
from tmics_space.metrics.temporal import FlowFunction, pair_error, visible

RAINY, TRUTH = "rainy", "truth"
"""The names of the rainy input and of the truth among the versions of a clip."""

Scores = dict[str, float]


class ClipMeter:
    """Scores restored versions of one clip. Add its frames in order; then ask for the scores of the clip.

    Args:
        protocol: of PSNR and SSIM, by name or as an object.
        flow: the flow between frames, for the warping error; None leaves it out.
    """

    def __init__(self, protocol: str | Protocol = "y", flow: FlowFunction | None = None) -> None:
        self._how = find_protocol(protocol) if isinstance(protocol, str) else protocol
        self._flow = flow
        self._frames: dict[str, list[Scores]] = defaultdict(list)
        self._rain: dict[str, RainError] = defaultdict(lambda: RainError(0.0, 0.0, 0, 0))
        self._warped: dict[str, list[float]] = defaultdict(list)
        self._previous: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(
        self, truth: Tensor, versions: Mapping[str, Tensor], *, scored: bool = True, follows: bool = True
    ) -> dict[str, Scores]:
        """Add a frame.

        Args:
            truth: the true frame, `(3, height, width)` uint8.
            versions: frames of the same shape by name. That of `RAINY` shows where the rain is.
            scored: whether the protocol scores this frame.
            follows: whether the frame follows the last one added; if not, they are not compared over time.

        Returns:
            `psnr`, `ssim` and, with a rainy frame, the scores of `RainError`, by version; empty if not scored.
        """
        images = {name: frame.double() / 255 for name, frame in {TRUTH: truth, **versions}.items()}
        self._compare_with_previous(images, follows)
        if not scored:
            return {}
        clean = images.pop(TRUTH)
        mask = rain_mask(images[RAINY], clean) if RAINY in images else None
        found = {}
        for name, image in images.items():
            psnr, ssim = score_frame(self._how, image, clean)
            scores = {"psnr": psnr, "ssim": ssim}
            if mask is not None:
                error = split_error(self._how.image(image), self._how.image(clean), mask)
                self._rain[name] += error
                scores |= error.scores()
            self._frames[name].append(scores)
            found[name] = scores
        return found

    def scores(self) -> dict[str, Scores]:
        """Return the scores of the clip, by version.

        - `psnr`: the mean over frames that differ from the truth; `ssim`: the mean over frames
        - `off_rain`, `rmse_on_rain`, `rmse_off_rain`: of all scored frames; need the rainy frames
        - `warping_error` (E_warp) and `warping_ratio`, (E - E_truth) / (E_rainy - E_truth): need a flow, the latter
          the rainy frames; nan if no pair of frames can be compared
        """
        means = {name: statistics.fmean(each) for name, each in self._warped.items()}
        found = {}
        for name, frames in self._frames.items():
            scores = {
                "psnr": mean_psnr([frame["psnr"] for frame in frames]),
                "ssim": statistics.fmean(frame["ssim"] for frame in frames),
            }
            if name in self._rain:
                scores |= self._rain[name].scores()
            if self._flow is not None:
                scores["warping_error"] = means.get(name, math.nan)
                if RAINY in self._frames:
                    truth = means.get(TRUTH, math.nan)
                    scores["warping_ratio"] = _ratio(means.get(name, math.nan) - truth, means.get(RAINY, 0.0) - truth)
            found[name] = scores
        return found

    def _compare_with_previous(self, images: Mapping[str, Tensor], follows: bool) -> None:
        if self._flow is None:
            return
        now = {name: image[None].float() for name, image in images.items()}
        if self._previous and follows:
            first, second = self._previous[TRUTH], now[TRUTH]
            forward, backward = self._flow(first, second), self._flow(second, first)
            mask = visible(forward, backward)
            if mask.any():
                for name, image in now.items():
                    self._warped[name].append(pair_error(self._previous[name], image, forward, mask).item())
        self._previous = now


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan
