"""PSNR and SSIM of images, and the luminance on which they are usually computed."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from nas.errors import ConfigError

WINDOW = 11  # taps of the Gaussian window of SSIM, sigma 1.5 (Wang et al., IEEE TIP 13(4), 2004)


def luminance(rgb: Tensor) -> Tensor:
    """Compute the Y of MATLAB's `rgb2ycbcr`: (65.481 R + 128.553 G + 24.966 B + 16) / 255 (ITU-R BT.601).

    Args:
        rgb: images, `(..., 3, height, width)` in [0, 1].

    Returns:
        Luminance, `(..., 1, height, width)` in [16/255, 235/255].

    Raises:
        ConfigError: images have another number of channels.
    """
    if rgb.ndim < 3 or rgb.shape[-3] != 3:
        raise ConfigError(f"images for luminance must be (..., 3, height, width), got {tuple(rgb.shape)}")
    red, green, blue = rgb.unbind(-3)
    return ((65.481 * red + 128.553 * green + 24.966 * blue + 16) / 255).unsqueeze(-3)


def psnr(a: Tensor, b: Tensor, *, border: int = 0, rounded: bool = False) -> Tensor:
    """Compute 10 log10(1 / MSE) in dB.

    Args:
        a: images, `(..., channels, height, width)` in [0, 1].
        b: images of the same shape.
        border: number of pixels to cut off each side.
        rounded: round both images to 8 bits first.

    Returns:
        One value per image, `(...)`; inf for equal images.

    Raises:
        ConfigError: shapes differ, images are not floating point, or nothing is left within the border.
    """
    a, b = _prepare(a, b, border, rounded)
    return -10 * torch.log10((a - b).square().mean((-3, -2, -1)))


def mean_psnr(values: Iterable[float]) -> float:
    """Return the mean of all finite PSNRs in dB; inf if none is finite, as for equal images."""
    finite = [value for value in values if value != math.inf]
    return sum(finite) / len(finite) if finite else math.inf


def ssim(a: Tensor, b: Tensor, *, border: int = 0, rounded: bool = False) -> Tensor:
    """Compute the structural similarity, twice differentiable.

    The window is an 11x11 Gaussian of sigma 1.5 at all positions within the image ("valid"). K1 = 0.01, K2 = 0.03, the
    data range is 1, covariances are those of the population. The result is the mean over pixels and channels.

    Args:
        a: images, `(..., channels, height, width)` in [0, 1].
        b: images of the same shape.
        border: number of pixels to cut off each side.
        rounded: round both images to 8 bits first.

    Returns:
        One value per image, `(...)`.

    Raises:
        ConfigError: as for `psnr`; or less than 11x11 pixels are left within the border.

    References:
        Wang et al., "Image Quality Assessment", IEEE TIP 13(4), 2004, eq. 13.
    """
    a, b = _prepare(a, b, border, rounded)
    if min(a.shape[-2:]) < WINDOW:
        height, width = a.shape[-2:]
        raise ConfigError(f"images for SSIM must have at least {WINDOW}x{WINDOW} pixels, got {height}x{width}")
    # The denominator needs only the sum of the two variances, so four filtered maps suffice.
    moments = _blur(torch.cat((a, b, a * a + b * b, a * b), dim=-3))
    mean_a, mean_b, squares, product = moments.chunk(4, dim=-3)
    means, mean_squares = mean_a * mean_b, mean_a.square() + mean_b.square()
    c1, c2 = 0.01**2, 0.03**2
    brightness = (2 * means + c1) / (mean_squares + c1)
    structure = (2 * (product - means) + c2) / (squares - mean_squares + c2)
    return (brightness * structure).mean((-3, -2, -1))


def _blur(image: Tensor) -> Tensor:
    """Compute Gaussian-weighted means: `(..., height, width)` to `(..., height - 10, width - 10)`."""
    *batch, channels, height, width = image.shape
    offset = torch.arange(WINDOW, dtype=image.dtype, device=image.device) - WINDOW // 2
    taps = torch.softmax(-(offset**2) / (2 * 1.5**2), dim=0).expand(channels, 1, WINDOW)
    # Without this, autocast runs the convolutions in half precision, in which E[x^2] - E[x]^2 is noise.
    with torch.autocast(image.device.type, enabled=False):
        rows = F.conv2d(image.reshape(-1, channels, height, width), taps.unsqueeze(-1), groups=channels)
        blurred = F.conv2d(rows, taps.unsqueeze(-2), groups=channels)
    return blurred.reshape(*batch, *blurred.shape[-3:])


def _prepare(a: Tensor, b: Tensor, border: int, rounded: bool) -> tuple[Tensor, Tensor]:
    """Check both images, cut their borders, convert to at least single precision, and round if `rounded`."""
    if a.shape != b.shape or a.ndim < 3:
        raise ConfigError(
            "images to compare must have one shape (..., channels, height, width), got"
            f" {tuple(a.shape)} and {tuple(b.shape)}"
        )
    if not (a.is_floating_point() and b.is_floating_point()):
        raise ConfigError(f"images to compare must be floating point in [0, 1], got {a.dtype} and {b.dtype}")
    height, width = a.shape[-2:]
    if not 0 <= 2 * border < min(height, width):
        raise ConfigError(f"the border must leave some pixels of {height}x{width} images, got {border} pixels")
    inside = (..., slice(border, height - border), slice(border, width - border))
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    a, b = a[inside].to(dtype), b[inside].to(dtype)
    return (_round(a), _round(b)) if rounded else (a, b)


def _round(image: Tensor) -> Tensor:
    """Round to the 256 levels of 8 bits, half to even, as numpy and scikit-image do."""
    return (image.clamp(0, 1) * 255).round() / 255
