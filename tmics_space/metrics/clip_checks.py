"""Checks of the two clips that a score compares."""

from __future__ import annotations

from torch import Tensor

from nas.errors import ConfigError, DivergedError


def check_clips(output: Tensor, truth: Tensor, *, least: int, what: str) -> None:
    """Check that two clips can be compared.

    Args:
        output: the restored clip, `(frames, 3, height, width)`.
        truth: the true clip, of the same shape.
        least: the least number of frames.
        what: names the score in messages.

    Raises:
        ConfigError: a clip has another shape or type, shapes differ, or there are too few frames.
        DivergedError: the output is not finite.
    """
    for name, clip in (("output", output), ("truth", truth)):
        if clip.ndim != 4 or clip.shape[1] != 3 or not clip.is_floating_point():
            raise ConfigError(
                f"{what}: the {name} must be floating point (frames, 3, height, width), got {clip.dtype}"
                f" {tuple(clip.shape)}"
            )
    if len(output) != len(truth):
        raise ConfigError(f"{what}: output and truth must have equally many frames, got {len(output)} and {len(truth)}")
    if output.shape != truth.shape:
        raise ConfigError(f"{what}: output and truth must have one size, got {_size(output)} and {_size(truth)} pixels")
    if len(truth) < least:
        raise ConfigError(f"{what}: a clip must have at least {least} frames, got {len(truth)}")
    for index, frame in enumerate(output):
        if not frame.isfinite().all():
            raise DivergedError(f"{what}: frame {index} of the output must be finite, got values that are not")


def _size(clip: Tensor) -> str:
    return f"{clip.shape[-2]}x{clip.shape[-1]}"
