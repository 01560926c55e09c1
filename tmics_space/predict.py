"""A network at work: films of any length and size, frame by frame, in tiles where memory asks for it."""

from __future__ import annotations

import itertools
import math
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.allocator import memory_kept
from nas.errors import ConfigError
from nas.finite import require_finite
from nas.footprint import footprint
from nas.planner.layout import channels_last
from tmics_space.data.frames import iterate_frames
from tmics_space.data.video import Span
from tmics_space.data.windows import window_indices
from tmics_space.data.writer import require_room, write_frames
from tmics_space.flow import Described
from tmics_space.inference import folded
from tmics_space.network import restore

OVERLAP = 32
"""By how many pixels neighbouring tiles overlap; across them one fades into the other."""

SMALLEST = 16
"""Frames of fewer pixels are continued beyond their edges: guided filters and optical flow need room."""


PROBE = 64
"""The height and width of the window by which memory is estimated."""


class Derained(NamedTuple):
    """A derained frame (3, height, width) in [0, 1], and the mean weight of the dominant branch in it."""

    frame: Tensor
    weight: float


class Seen(NamedTuple):
    """A frame as all windows around it see it."""

    frame: Tensor
    """(3, height, width) in [0, 1], on the network's device, continued to the smallest size"""
    described: Described
    """What the network says of it by itself, (1, 1, ...) each."""


def derain(
    network: nn.Module,
    clip: Iterable[Tensor],
    *,
    frames: int = 5,
    tile: int | None = None,
    bfloat16: bool = False,
    cuts: Collection[int] = (),
) -> Iterator[Derained]:
    """Derain a clip of frames (3, height, width) uint8, as they come; only a window of them is held at a time.

    Batch norms are folded into convolutions; a frame goes to the device once, and so is computed what its
    windows share of it. The memory of one frame is kept for the next.

    Args:
        network: returns `tmics_space.network.Restored`; in eval mode.
        frames: the length of its window; the clip is reflected at its ends.
        tile: greatest height and width to process at once, at least twice the overlap, else `ConfigError`. Channel
            attention, group norms and the averaging then see a tile, not the whole frame.
        bfloat16: convolve in 16 bits, which takes half the time on hardware that can. What is added to the frame is
            rounded to 8 significant bits.
        cuts: the numbers of frames, from 0, at which another shot begins: no window reaches across, and each shot is
            reflected at its own ends.
    """
    if tile is not None and tile < 2 * OVERLAP:
        raise ConfigError(f"tiles are at least {2 * OVERLAP} pixels wide, found {tile}")
    return _derained(folded(network), clip, frames, tile, bfloat16, cuts)


def derain_file(
    network: nn.Module,
    source: str | Path,
    sink: str | Path,
    *,
    tile: int | None = None,
    bfloat16: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """Derain a video file, a folder of frames or an image, to a video file or an image (by its suffix) or a folder that
    keeps their names.

    A video file made of another one shows each frame when that does, with its sound. No window reaches across a gap in
    the numbers of a folder's frames. If `tile` is None, frames are processed whole unless one would take more than half
    of the device's memory, else in the largest tiles that do not. `progress` is called with (frames done, frames in
    all). Returns `frames`, the `seconds` from the first to the last, `frames_per_second`, the mean `weight` of the
    dominant branch, and `tile` if there were tiles. Raises `InvalidFileError` for a source that cannot be read to its
    end or a sink that cannot be written, `ConfigError` for a sink that cannot hold it; no sink is left behind then.
    """
    stream = iterate_frames(source)
    require_room(sink, stream.frame_count)
    frames = int(getattr(network, "frames", 5))
    weights: list[float] = []
    spans: deque[Span | None] = deque()

    def clip() -> Iterator[Tensor]:
        for frame, span in stream.timed():
            spans.append(span)
            yield frame

    with write_frames(sink, stream.frame_rate, stream.film) as write:
        if tile is None:
            tile = fitting_tile(network, frames, stream.height, stream.width)
        derained = derain(network, clip(), frames=frames, tile=tile, bfloat16=bfloat16, cuts=stream.cuts)
        started = time.perf_counter()
        for index, restored in enumerate(derained):
            stem = stream.stems[index] if stream.stems else None
            write((restored.frame * 255).round().to(torch.uint8), stem, spans.popleft())
            weights.append(restored.weight)
            if progress is not None:
                progress(index + 1, max(stream.frame_count, index + 1))
    seconds = time.perf_counter() - started
    return {
        "frames": len(weights),
        "seconds": seconds,
        "frames_per_second": len(weights) / seconds,
        "weight": sum(weights) / len(weights),
        **({} if tile is None else {"tile": tile}),
    }


def fitting_tile(network: nn.Module, frames: int, height: int, width: int) -> int | None:
    """The side of the largest tiles of which one takes half of the memory of the network's device, as estimated from
    that of a small window; None where frames of (height, width) take no more."""
    like = next(network.parameters())
    window = like.new_zeros(1, frames, 3, PROBE, PROBE)
    with torch.no_grad():
        taken = footprint(lambda: network(window), [*network.parameters(), *network.buffers()]).memory
    pixels = int(memory(like.device) / 2 / taken * PROBE**2)
    return None if height * width <= pixels else max(math.isqrt(pixels), 2 * OVERLAP)


def memory(device: torch.device) -> int:
    """The bytes of memory that a device has in all."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _derained(
    network: nn.Module, clip: Iterable[Tensor], frames: int, tile: int | None, bfloat16: bool, cuts: Collection[int]
) -> Iterator[Derained]:
    like = next(network.parameters())
    narrow = torch.autocast(like.device.type, torch.bfloat16, enabled=bfloat16)
    # Only whole frames look the same in every window.
    describe = getattr(network, "describe", None) if tile is None else None

    @torch.no_grad()
    def see(frame: Tensor) -> Seen:
        height, width = frame.shape[1:]
        beyond = (0, max(SMALLEST - width, 0), 0, max(SMALLEST - height, 0))
        pixels = F.pad(frame.to(like) / 255, beyond, mode="replicate")
        with narrow, channels_last(network):
            return Seen(pixels, describe(pixels[None, None]) if describe is not None else [])

    with memory_kept():
        for shot in _shots(clip, cuts):
            for size, window in _windows(shot, frames, see):
                with narrow, channels_last(network):
                    derained = _derain_window(network, window, size, tile)
                yield derained


def _shots(clip: Iterable[Tensor], cuts: Collection[int]) -> Iterator[Iterator[Tensor]]:
    """The shots of a clip, one after the other, as their frames come."""
    shots = itertools.accumulate(index in cuts for index in itertools.count())
    return (map(itemgetter(1), shot) for _, shot in itertools.groupby(zip(shots, clip, strict=False), itemgetter(0)))


def _windows(
    clip: Iterable[Tensor], frames: int, see: Callable[[Tensor], Seen]
) -> Iterator[tuple[torch.Size, list[Seen]]]:
    """The size of every frame and the window around it, reflected at the ends."""
    held: deque[tuple[torch.Size, Seen]] = deque(maxlen=frames)
    source, seen = iter(clip), 0
    for centre in itertools.count():
        for frame in itertools.islice(source, centre + frames // 2 + 1 - seen):
            held.append((frame.shape[1:], see(frame)))
            seen += 1
        if centre == seen:
            return
        yield held[centre - seen][0], [held[i - seen][1] for i in window_indices(centre, seen, frames)]


@torch.no_grad()
def _derain_window(network: nn.Module, window: list[Seen], size: torch.Size, tile: int | None) -> Derained:
    frames = torch.stack([seen.frame for seen in window])
    described = [torch.cat(level, 1) for level in zip(*(seen.described for seen in window), strict=True)]
    height, width = frames.shape[-2:]
    total, parts = frames.new_zeros(3, height, width), frames.new_zeros(1, height, width)
    weights = []
    for rows, columns in itertools.product(_spans(height, tile or height), _spans(width, tile or width)):
        part = frames[:, :, rows, columns].unsqueeze(0)
        restored = restore(network, part, *([described] if described else []))
        require_finite((restored.output, restored.weight), "deraining stopped")
        fade = (_fade(rows, height).unsqueeze(1) * _fade(columns, width)).to(frames)
        total[:, rows, columns] += restored.output[0] * fade
        parts[:, rows, columns] += fade
        weights.append(restored.weight.mean().item())
    derained = (total / parts)[:, : size[0], : size[1]]
    return Derained(derained.clamp(0, 1).float().cpu(), sum(weights) / len(weights))


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
