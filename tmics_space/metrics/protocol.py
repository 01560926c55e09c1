"""Named protocols of PSNR and SSIM. Do not compare scores of different protocols."""

from __future__ import annotations

import math
from typing import Literal

import msgspec
from torch import Tensor

from nas.errors import UnknownNameError
from tmics_space.metrics.clip_checks import check_clips
from tmics_space.metrics.image import luminance, mean_psnr, psnr, ssim


class Protocol(msgspec.Struct, frozen=True):
    """The channels, rounding and frames from which PSNR and SSIM are computed."""

    name: str
    statement: str
    """A line for the tables of scores."""
    channels: Literal["y", "rgb"]
    rounded: bool = False
    """Round the channels to 8 bits."""
    drop: int = 0
    """The number of frames to exclude at each end of a clip."""

    def image(self, rgb: Tensor) -> Tensor:
        """Return the scored channels of images `(..., 3, height, width)`: `(..., 1 or 3, height, width)`."""
        return luminance(rgb) if self.channels == "y" else rgb


class ClipScores(msgspec.Struct, frozen=True):
    """The scores of one clip: means over its scored frames, and the score of each frame.

    `frames` are indices from 0. The mean PSNR excludes frames equal to the truth; it is inf if all are equal.
    """

    psnr: float
    ssim: float
    frames: tuple[int, ...]
    frame_psnr: tuple[float, ...]
    frame_ssim: tuple[float, ...]
    protocol: str
    statement: str

    @property
    def equal_frames(self) -> int:
        """The number of scored frames that equal the truth."""
        return self.frame_psnr.count(math.inf)


_SSIM = "SSIM 11x11 Gaussian sigma 1.5, valid region, data range 1; mean per clip, then over clips"

PROTOCOLS = {
    p.name: p
    for p in (
        Protocol(  # the authors also crop frames of 889 columns to 888; here the layout of the data set does
            "tmics",
            "MATLAB Y in [0, 1], not rounded; 2 frames dropped at each end (3..29 of 31);"
            f" {_SSIM}. The authors scored saved JPEGs, and their SSIM took the range as 255 on [0, 1]"
            " and halved large frames: their SSIM values are not comparable",
            "y",
            drop=2,
        ),
        Protocol(
            "nturain",
            f"MATLAB Y rounded to 8 bits; 2 frames dropped at each end; {_SSIM}",
            "y",
            rounded=True,
            drop=2,
        ),
        Protocol("y", f"MATLAB Y in [0, 1], not rounded; all frames; {_SSIM}", "y"),
        Protocol("rgb", f"RGB in [0, 1], not rounded; all frames; {_SSIM}", "rgb"),
    )
}


def find_protocol(name: str) -> Protocol:
    """Return the protocol of a name.

    Raises:
        UnknownNameError: no protocol has this name.
    """
    if name not in PROTOCOLS:
        raise UnknownNameError("metric protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


def evaluate_clip(how: str | Protocol, output: Tensor, truth: Tensor) -> ClipScores:
    """Compute PSNR (dB) and SSIM of a restored clip, in float64 and frame by frame.

    Args:
        how: a protocol or its name.
        output: the restored clip, `(frames, 3, height, width)`, clamped to [0, 1].
        truth: the true clip, of the same shape, in [0, 1].

    Returns:
        The scores.

    Raises:
        UnknownNameError: no protocol has this name.
        ConfigError: shapes differ or do not fit, or there are too few frames or pixels.
        DivergedError: the output is not finite.
    """
    how = find_protocol(how) if isinstance(how, str) else how
    check_clips(output, truth, least=2 * how.drop + 1, what=f"protocol '{how.name}'")
    frames = range(how.drop, len(truth) - how.drop)
    found = [score_frame(how, output[frame].detach().double(), truth[frame].double()) for frame in frames]
    psnrs, ssims = ([each[i] for each in found] for i in (0, 1))
    return ClipScores(
        psnr=mean_psnr(psnrs),
        ssim=sum(ssims) / len(ssims),
        frames=tuple(frames),
        frame_psnr=tuple(psnrs),
        frame_ssim=tuple(ssims),
        protocol=how.name,
        statement=how.statement,
    )


def score_frame(how: Protocol, output: Tensor, truth: Tensor) -> tuple[float, float]:
    """Compute PSNR (dB) and SSIM of one restored frame.

    Args:
        how: the protocol.
        output: the restored frame, `(3, height, width)`, clamped to [0, 1].
        truth: the true frame, of the same shape, in [0, 1].

    Raises:
        ConfigError: shapes differ, or there are too few pixels.
    """
    restored, clean = how.image(output.clamp(0, 1)), how.image(truth)
    return psnr(restored, clean, rounded=how.rounded).item(), ssim(restored, clean, rounded=how.rounded).item()
