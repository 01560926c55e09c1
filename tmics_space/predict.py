"""A network at work: films of any length and size, frame by frame, in tiles where memory asks for it."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.errors import ConfigError
from tmics_space.data.frames import iterate_frames
from tmics_space.data.windows import window_indices
from tmics_space.data.writer import write_frames

OVERLAP = 32
"""By how many pixels neighbouring tiles overlap; across them one fades into the other."""

SMALLEST = 16
"""Frames of fewer pixels are continued beyond their edges: guided filters and optical flow need room."""


class Derained(NamedTuple):
    """A derained frame (3, height, width) in [0, 1], and the mean weight of the dominant branch in it."""

    frame: Tensor
    weight: float


def derain(
    network: nn.Module, clip: Iterable[Tensor], *, frames: int = 5, tile: int | None = None
) -> Iterator[Derained]:
    """Derain a clip of frames (3, height, width) uint8, as they come; only a window of them is held at a time.

    Args:
        network: returns `tmics_space.network.Restored`; in eval mode.
        frames: the length of its window; the clip is reflected at its ends.
        tile: greatest height and width to process at once, at least twice the overlap, else `ConfigError`. Channel
            attention, group norms and the averaging then see a tile, not the whole frame.
    """
    if tile is not None and tile < 2 * OVERLAP:
        raise ConfigError(f"tiles are at least {2 * OVERLAP} pixels wide, found {tile}")
    like = next(network.parameters())
    return (_derain_window(network, window.to(like) / 255, tile) for window in _windows(clip, frames))


def derain_file(
    network: nn.Module,
    source: str | Path,
    sink: str | Path,
    *,
    tile: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """Derain a video file or a folder of frames, to a video file (by its suffix) or a folder that keeps their names.

    Returns `frames`, `seconds`, `frames_per_second` and the mean `weight` of the dominant branch. `progress` is called
    with (frames done, frames in all). Raises `InvalidFileError` for a source that cannot be read or a sink that cannot
    be written; no sink is left behind then.
    """
    stream = iterate_frames(source)
    derained = derain(network, stream, frames=int(getattr(network, "frames", 5)), tile=tile)
    started = time.perf_counter()
    weights: list[float] = []
    with write_frames(sink, stream.frame_rate) as write:
        for index, restored in enumerate(derained):
            write((restored.frame * 255).round().to(torch.uint8), stream.stems[index] if stream.stems else None)
            weights.append(restored.weight)
            if progress is not None:
                progress(index + 1, max(stream.frame_count, index + 1))
    seconds = time.perf_counter() - started
    return {
        "frames": len(weights),
        "seconds": seconds,
        "frames_per_second": len(weights) / seconds,
        "weight": sum(weights) / len(weights),
    }


def _windows(clip: Iterable[Tensor], frames: int) -> Iterator[Tensor]:
    """The window around every frame, reflected at the ends, (frames, 3, height, width) each."""
    held: deque[Tensor] = deque(maxlen=frames)
    source, seen = iter(clip), 0
    for centre in itertools.count():
        for frame in itertools.islice(source, centre + frames // 2 + 1 - seen):
            held.append(frame)
            seen += 1
        if centre == seen:
            return
        yield torch.stack([held[i - seen] for i in window_indices(centre, seen, frames)])


@torch.no_grad()
def _derain_window(network: nn.Module, window: Tensor, tile: int | None) -> Derained:
    height, width = window.shape[-2:]
    total, parts = window.new_zeros(3, height, width), window.new_zeros(1, height, width)
    weights = []
    for rows, columns in itertools.product(_spans(height, tile or height), _spans(width, tile or width)):
        output, weight = _restore(network, window[:, :, rows, columns])
        fade = (_fade(rows, height).unsqueeze(1) * _fade(columns, width)).to(window)
        total[:, rows, columns] += output * fade
        parts[:, rows, columns] += fade
        weights.append(weight)
    return Derained((total / parts).clamp(0, 1).float().cpu(), sum(weights) / len(weights))


def _restore(network: nn.Module, window: Tensor) -> tuple[Tensor, float]:
    """The derained centre (3, height, width) of a window, and the mean weight of the dominant branch."""
    height, width = window.shape[-2:]
    beyond = (0, max(SMALLEST - width, 0), 0, max(SMALLEST - height, 0))
    restored = network(F.pad(window, beyond, mode="replicate").unsqueeze(0))
    return restored.output[0, :, :height, :width], restored.weight.mean().item()


def _spans(length: int, tile: int) -> list[slice]:
    """Spans of `tile` that cover a length, neighbours sharing at least the overlap."""
    if length <= tile:
        return [slice(0, length)]
    count = -(-(length - OVERLAP) // (tile - OVERLAP))
    starts = [round(i * (length - tile) / (count - 1)) for i in range(count)]
    return [slice(start, start + tile) for start in starts]


def _fade(span: slice, length: int) -> Tensor:
    """Weights that fall linearly over the overlap where a span has a neighbour."""
    size = span.stop - span.start
    ramp = ((torch.arange(size) + 1) / (OVERLAP + 1)).clamp(max=1)
    fade = ramp if span.start > 0 else torch.ones(size)
    return torch.minimum(fade, ramp.flip(0)) if span.stop < length else fade
