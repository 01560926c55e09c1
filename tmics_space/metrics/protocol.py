"""How a clip is scored, as data and by name: scores under different protocols cannot be compared."""

from __future__ import annotations

import math
from typing import Literal

import msgspec
from torch import Tensor

from nas.errors import UnknownNameError
from tmics_space.metrics.clips import check_clips
from tmics_space.metrics.image import luminance, mean_psnr, psnr, ssim


class Protocol(msgspec.Struct, frozen=True):
    """What PSNR and SSIM are taken on; `statement` is the line that every table made under it shows."""

    name: str
    statement: str
    channels: Literal["y", "rgb"]
    rounded: bool = False
    """Whether those channels are rounded to 8 bits."""
    drop: int = 0
    """Frames left out at each end of a clip."""


class ClipScores(msgspec.Struct, frozen=True):
    """One clip: means over its scored frames, then each of them; `frames` are indices from 0.

    The mean PSNR is that of the frames which differ from the truth; it is inf if none does.
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
        """How many scored frames equal the truth."""
        return self.frame_psnr.count(math.inf)


_SSIM = "SSIM 11x11 Gaussian sigma 1.5, valid region, data range 1; mean per clip, then over clips"

PROTOCOLS = {
    p.name: p
    for p in (
        Protocol(  # the authors also cut frames of 889 columns to 888, which is for whoever loads them
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


def protocol(name: str) -> Protocol:
    """The protocol of that name; raises UnknownNameError, with the nearest, if there is none."""
    if name not in PROTOCOLS:
        raise UnknownNameError("metric protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


def evaluate_clip(how: str | Protocol, output: Tensor, truth: Tensor) -> ClipScores:
    """PSNR (dB) and SSIM of a restored clip against the true one, both (frames, 3, height, width) in [0, 1].

    The output is clamped to [0, 1] and scored in float64, frame by frame. Raises UnknownNameError for an
    unknown protocol, ConfigError for shapes that differ, do not fit or have too few frames or pixels,
    DivergedError for an output that is not finite.
    """
    how = protocol(how) if isinstance(how, str) else how
    check_clips(output, truth, least=2 * how.drop + 1, what=f"protocol '{how.name}'")
    frames = range(how.drop, len(truth) - how.drop)
    psnrs, ssims = [], []
    for frame in frames:
        restored, clean = output[frame].detach().double().clamp(0, 1), truth[frame].double()
        if how.channels == "y":
            restored, clean = luminance(restored), luminance(clean)
        psnrs.append(psnr(restored, clean, rounded=how.rounded).item())
        ssims.append(ssim(restored, clean, rounded=how.rounded).item())
    return ClipScores(
        psnr=mean_psnr(psnrs),
        ssim=sum(ssims) / len(ssims),
        frames=tuple(frames),
        frame_psnr=tuple(psnrs),
        frame_ssim=tuple(ssims),
        protocol=how.name,
        statement=how.statement,
    )
