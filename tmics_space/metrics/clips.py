"""What every score asks of the two clips it compares."""

from __future__ import annotations

from torch import Tensor

from nas.errors import ConfigError, DivergedError


def check_clips(output: Tensor, truth: Tensor, *, least: int, what: str) -> None:
    """Raise ConfigError unless both are (frames, 3, height, width) and alike, with frames enough for `what`.

    Raises DivergedError for an output that is not finite.
    """
    for name, clip in (("output", output), ("truth", truth)):
        if clip.ndim != 4 or clip.shape[1] != 3 or not clip.is_floating_point():
            raise ConfigError(
                f"{what}: the {name} must be floating point (frames, 3, height, width),"
                f" found {clip.dtype} {tuple(clip.shape)}"
            )
    if len(output) != len(truth):
        raise ConfigError(f"{what}: the output has {len(output)} frames, the truth {len(truth)}")
    if output.shape != truth.shape:
        raise ConfigError(f"{what}: the output's frames are {_size(output)}, the truth's {_size(truth)} pixels")
    if len(truth) < least:
        raise ConfigError(f"{what} needs at least {least} frames, found {len(truth)}")
    for index, frame in enumerate(output):
        if not frame.isfinite().all():
            raise DivergedError(f"{what}: frame {index} of the output is not finite")


def _size(clip: Tensor) -> str:
    return f"{clip.shape[-2]}x{clip.shape[-1]}"
