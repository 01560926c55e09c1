"""The error of restored frames, divided by where the rain was: what remains of it, and damage elsewhere."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

VISIBLE = 15 / 255
"""The change of a pixel, averaged over colours, above which it counts as rain; `rain_statistics` has the same bound."""

_BRIGHTEST = 0.125
"""The error, of 1, that a map shows in full colour."""
_ON, _OFF = (1.0, 0.62, 0.0), (0.25, 0.55, 1.0)  # told apart by all readers, and by brightness


def rain_mask(rainy: Tensor, truth: Tensor) -> Tensor:
    """Mark the pixels that rain changed visibly: boolean `(..., 1, height, width)`.

    Args:
        rainy: frames, `(..., 3, height, width)` in [0, 1].
        truth: the true frames, of the same shape.
    """
    return (rainy - truth).mean(-3, keepdim=True).abs() > VISIBLE


class RainError(NamedTuple):
    """Sums of squared errors over pixels and channels, and numbers of values, on the rain and off it."""

    on: float
    off: float
    on_count: int
    off_count: int

    def __add__(self, other: RainError) -> RainError:  # type: ignore[override]
        return RainError(
            self.on + other.on,
            self.off + other.off,
            self.on_count + other.on_count,
            self.off_count + other.off_count,
        )

    def scores(self) -> dict[str, float]:
        """Return the share of the squared error off the rain in [0, 1], and both errors in levels of 255.

        A score is nan if there is no error, or no pixel of its kind.
        """
        total = self.on + self.off
        return {
            "off_rain": self.off / total if total else torch.nan,
            "rmse_on_rain": _levels(self.on, self.on_count),
            "rmse_off_rain": _levels(self.off, self.off_count),
        }


def split_error(output: Tensor, truth: Tensor, mask: Tensor) -> RainError:
    """Sum the squared error of a frame on the rain and off it.

    Args:
        output: the restored frame, `(channels, height, width)` in [0, 1].
        truth: the true frame, of the same shape.
        mask: the rain, boolean `(1, height, width)`.
    """
    squared = (output - truth).square().double()
    on, pixels = (squared * mask).sum().item(), int(mask.sum())
    channels, whole = len(squared), mask.numel()
    return RainError(on, squared.sum().item() - on, channels * pixels, channels * (whole - pixels))


def error_map(output: Tensor, truth: Tensor, mask: Tensor | None) -> Tensor:
    """Draw the error of a frame: orange on the rain, blue off it, grey if the rain is unknown.

    Brightness is the absolute error, averaged over channels. Full colour is 32 of 255 and more.

    Args:
        output: the restored frame, `(channels, height, width)` in [0, 1].
        truth: the true frame, of the same shape.
        mask: the rain, boolean `(1, height, width)`.

    Returns:
        The map, `(3, height, width)` uint8.
    """
    error = ((output - truth).abs().mean(0, keepdim=True) / _BRIGHTEST).clamp(max=1)
    on, off = (error.new_tensor(colour).view(3, 1, 1) for colour in (_ON, _OFF))
    colours = torch.ones_like(on) if mask is None else torch.where(mask, on, off)
    return (error * colours * 255).round().to(torch.uint8)


def _levels(squares: float, count: int) -> float:
    return 255 * float((squares / count) ** 0.5) if count else torch.nan
