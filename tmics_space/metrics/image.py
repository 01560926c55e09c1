"""PSNR and SSIM of images, and the luminance they are usually taken on."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from nas.errors import ConfigError

WINDOW = 11  # taps of the Gaussian window of SSIM, sigma 1.5 (Wang et al., IEEE TIP 13(4), 2004)


def luminance(rgb: Tensor) -> Tensor:
    """The Y of MATLAB's `rgb2ycbcr`: (65.481 R + 128.553 G + 24.966 B + 16) / 255 (ITU-R BT.601).

    Takes (..., 3, height, width) in [0, 1]; returns (..., 1, height, width) in [16/255, 235/255]. Raises
    ConfigError for another number of channels.
    """
    if rgb.ndim < 3 or rgb.shape[-3] != 3:
        raise ConfigError(f"luminance needs images (..., 3, height, width), found {tuple(rgb.shape)}")
    red, green, blue = rgb.unbind(-3)
    return ((65.481 * red + 128.553 * green + 24.966 * blue + 16) / 255).unsqueeze(-3)


def psnr(a: Tensor, b: Tensor, *, border: int = 0, rounded: bool = False) -> Tensor:
    """10 log10(1 / MSE) in dB of images (..., channels, height, width) in [0, 1], one value per image: (...).

    `border` pixels are cut off each side; `rounded` rounds both images to 8 bits first. Equal images give
    inf. Raises ConfigError for shapes that differ, integer images, or a border that leaves nothing.
    """
    a, b = _prepare(a, b, border, rounded)
    return -10 * torch.log10((a - b).square().mean((-3, -2, -1)))


def mean_psnr(values: Iterable[float]) -> float:
    """The mean of PSNRs in dB without those of equal images, whose `inf` would outweigh all others; inf if all are."""
    finite = [value for value in values if value != math.inf]
    return sum(finite) / len(finite) if finite else math.inf


def ssim(a: Tensor, b: Tensor, *, border: int = 0, rounded: bool = False) -> Tensor:
    """Structural similarity of images (..., channels, height, width) in [0, 1], one value per image: (...).

    Wang et al. 2004, Eq. 13: 11x11 Gaussian window of sigma 1.5, only where it fits ("valid"), K1 = 0.01,
    K2 = 0.03, data range 1, covariances of the population; the mean over pixels and channels. Differentiable
    twice. `border` and `rounded` as in `psnr`. Raises ConfigError as `psnr` does, and for images under 11x11.
    """
    a, b = _prepare(a, b, border, rounded)
    if min(a.shape[-2:]) < WINDOW:
        height, width = a.shape[-2:]
        raise ConfigError(f"SSIM needs images of at least {WINDOW}x{WINDOW} pixels, found {height}x{width}")
    # the denominator only needs the sum of the two variances: four filtered maps do where five are usual
    moments = _blur(torch.cat((a, b, a * a + b * b, a * b), dim=-3))
    mean_a, mean_b, squares, product = moments.chunk(4, dim=-3)
    means, mean_squares = mean_a * mean_b, mean_a.square() + mean_b.square()
    c1, c2 = 0.01**2, 0.03**2
    brightness = (2 * means + c1) / (mean_squares + c1)
    structure = (2 * (product - means) + c2) / (squares - mean_squares + c2)
    return (brightness * structure).mean((-3, -2, -1))


def _blur(image: Tensor) -> Tensor:
    """The Gaussian-weighted mean wherever the window fits: (..., H, W) to (..., H - 10, W - 10)."""
    *batch, channels, height, width = image.shape
    offset = torch.arange(WINDOW, dtype=image.dtype, device=image.device) - WINDOW // 2
    taps = torch.softmax(-(offset**2) / (2 * 1.5**2), dim=0).expand(channels, 1, WINDOW)
    # under autocast the convolutions would run in half precision, where E[x^2] - E[x]^2 is noise
    with torch.autocast(image.device.type, enabled=False):
        rows = F.conv2d(image.reshape(-1, channels, height, width), taps.unsqueeze(-1), groups=channels)
        blurred = F.conv2d(rows, taps.unsqueeze(-2), groups=channels)
    return blurred.reshape(*batch, *blurred.shape[-3:])


def _prepare(a: Tensor, b: Tensor, border: int, rounded: bool) -> tuple[Tensor, Tensor]:
    """Both images checked, cut, in single precision at least, and rounded to 8 bits if asked."""
    if a.shape != b.shape or a.ndim < 3:
        raise ConfigError(
            "images to compare need one shape (..., channels, height, width),"
            f" found {tuple(a.shape)} and {tuple(b.shape)}"
        )
    if not (a.is_floating_point() and b.is_floating_point()):
        raise ConfigError(f"images to compare need floating point values in [0, 1], found {a.dtype} and {b.dtype}")
    height, width = a.shape[-2:]
    if not 0 <= 2 * border < min(height, width):
        raise ConfigError(f"a border of {border} pixels leaves nothing of {height}x{width} images")
    inside = (..., slice(border, height - border), slice(border, width - border))
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    a, b = a[inside].to(dtype), b[inside].to(dtype)
    return (_round(a), _round(b)) if rounded else (a, b)


def _round(image: Tensor) -> Tensor:
    """To the 256 levels of 8 bits, half to even as numpy and scikit-image round."""
    return (image.clamp(0, 1) * 255).round() / 255
