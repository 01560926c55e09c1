"""Prediction: derains films of any length and size frame by frame, in tiles if memory is short."""

from __future__ import annotations

import functools
import itertools
import math
import operator
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.cost.meter import footprint
from nas.cost.system_memory import total_memory
from nas.distributed.ranks import alone, count, gathered, of_first, rank
from nas.errors import ConfigError
from nas.kernels.finite import require_finite
from nas.kernels.freed_memory import memory_kept
from nas.kernels.memory_format import channels_last
from tmics_space.data.frames import iterate_frames
from tmics_space.data.twins import mark_twins
from tmics_space.data.video import Span
from tmics_space.data.windowing import window_indices
from tmics_space.data.writer import Write, require_room, write_frames
from tmics_space.flow import Described
from tmics_space.inference import folded
from tmics_space.network import restore

OVERLAP = 32
"""The overlap of neighbouring tiles in pixels; within it, one tile fades into the next."""

SMALLEST = 16
"""The least height and width in pixels; smaller frames are padded, for guided filters and optical flow."""

PROBE = 64
"""The height and width of the window that serves to estimate memory."""

TURN = 8
"""Frames that a rank derains in a row. The features of the frames around them are computed by two ranks."""


class Derained(NamedTuple):
    """A derained frame `(3, height, width)` in [0, 1] and the mean weight of the dominant branch."""

    frame: Tensor
    weight: float
    twin: bool = False
    """Whether the frame repeats the one before, as conversions between frame rates insert them."""


Make = Callable[[], Derained]
"""Derains one frame, once."""


class Seen(NamedTuple):
    """A frame, prepared once for all windows that contain it."""

    frame: Tensor
    """`(3, height, width)` in [0, 1], on the network's device, padded to the smallest size"""
    described: Described
    """The per-frame features of the network, `(1, 1, ...)` each."""


class Awaited:
    """A frame that is prepared once, when a window with it is derained."""

    def __init__(self, frame: Tensor, see: Callable[[Tensor], Seen]) -> None:
        self._frame: Tensor | None = frame
        self._see = see

    @functools.cached_property
    def seen(self) -> Seen:
        """The prepared frame."""
        assert self._frame is not None
        seen, self._frame = self._see(self._frame), None
        return seen


def derain(
    network: nn.Module,
    clip: Iterable[Tensor],
    *,
    frames: int = 5,
    tile: int | None = None,
    bfloat16: bool = False,
    cuts: Collection[int] = (),
) -> Iterator[Derained]:
    """Derain a clip frame by frame; only one window of frames, and six frames after it, are in memory at a time.

    A window has different frames: of frames that repeat the one before (`tmics_space.data.twins`), only the first is a
    neighbour. Each of them is derained, and equal ones only once.

    Batch norms are folded into convolutions. Each frame moves to the device once, and features that windows share are
    computed once. Freed memory is kept while a frame is computed, and returned before the frame is yielded; enter
    `nas.kernels.freed_memory.memory_kept` around the iteration to keep it longer, which is faster.

    Args:
        network: returns `tmics_space.network.Restored`; in eval mode.
        clip: frames `(3, height, width)` uint8.
        frames: length of the network's window; the clip is reflected at its ends.
        tile: greatest height and width to process at once, at least twice the overlap. With tiles, channel attention,
            group norms and the averaging depend on a tile instead of the whole frame.
        bfloat16: convolve in 16 bits, for speed on hardware that supports it. The change to the frame has 8 significant
            bits then.
        cuts: the numbers of frames, from 0, at which a new shot begins. Each shot is derained as a clip of its own.

    Returns:
        An iterator over the derained frames.

    Raises:
        ConfigError: `tile` is too small.
    """
    _require_tile(tile)
    return (make() for make in _makes(folded(network), clip, frames, tile, bfloat16, cuts))


def derain_file(
    network: nn.Module,
    source: str | Path,
    sink: str | Path,
    *,
    tile: int | None = None,
    bfloat16: bool = False,
    folder: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """Derain a video file, a folder of frames or an image; on several ranks, each derains its share of the frames.

    If source and sink are video files, the sink keeps the times of frames and the sound. A folder keeps the names of
    frames. No window reaches across a gap in the numbers of a folder's frames. A failed run leaves no sink. All ranks
    read the source; rank 0 writes the bytes that one rank alone would write.

    Args:
        network: returns `tmics_space.network.Restored`; in eval mode.
        source: a video file, a folder of frames or an image.
        sink: a video file or an image, by its suffix; without a suffix, a folder.
        tile: greatest height and width to process at once. By default, frames are processed whole if this takes at
            most half of the device's memory, else in the largest tiles that do.
        bfloat16: convolve in 16 bits (see `derain`).
        folder: write a folder even if the name of the sink has a suffix.
        progress: called with (frames done, all frames).

    Returns:
        `frames`, `seconds` from the first to the last frame, `frames_per_second`, the mean `weight` of the dominant
        branch, the number of `doubled` frames if there were any, and `tile` if there were tiles.

    Raises:
        InvalidFileError: the source cannot be read to its end, or the sink exists or cannot be written.
        ConfigError: the sink cannot hold the result, or `tile` is too small.
    """
    _require_tile(tile)
    stream = iterate_frames(source)
    if not folder:
        require_room(sink, stream.frame_count)
    frames = int(getattr(network, "frames", 5))
    weights: list[float] = []
    doubled = 0
    spans: deque[Span | None] = deque()

    def clip() -> Iterator[Tensor]:
        for frame, span in stream.timed():
            spans.append(span)
            yield frame

    # Kept for all frames, since otherwise the system clears the pages again for each frame.
    with memory_kept(), ExitStack() as stack:
        writers = list[Write]()  # that of rank 0
        opened = write_frames(sink, stream.frame_rate, stream.film, folder=folder)
        of_first(lambda: writers.append(stack.enter_context(opened)))
        if tile is None:
            tile = of_first(lambda: fitting_tile(network, frames, stream.height, stream.width))
        makes = _makes(folded(network), clip(), frames, tile, bfloat16, stream.cuts)
        started = time.perf_counter()
        for index, (frame, weight, twin) in enumerate(_in_turns(makes)):
            stem, span = stream.stems[index] if stream.stems else None, spans.popleft()
            for write in writers:
                write(frame, stem, span)
            weights.append(weight)
            doubled += twin
            if progress is not None:
                progress(index + 1, max(stream.frame_count, index + 1))
    seconds = time.perf_counter() - started
    return {
        "frames": len(weights),
        "seconds": seconds,
        "frames_per_second": len(weights) / seconds,
        "weight": sum(weights) / len(weights),
        **({"doubled": doubled} if doubled else {}),
        **({} if tile is None else {"tile": tile}),
    }


def _in_turns(makes: Iterator[Make]) -> Iterator[tuple[Tensor, float, bool]]:
    """Derain frames in turns of ranks, and return those of all ranks in order, as uint8."""

    def made(make: Make) -> tuple[Tensor, float, bool]:
        frame, weight, twin = make()
        return (frame * 255).round().to(torch.uint8), weight, twin

    if count() == 1:
        yield from map(made, makes)
        return
    ranks = count()
    more = True
    while more:
        turn, number = [], -1
        with alone():
            for number, make in enumerate(itertools.islice(makes, TURN * ranks)):
                if number // TURN == rank():
                    turn.append(made(make))
        more = number + 1 == TURN * ranks
        yield from itertools.chain.from_iterable(gathered(turn))


def _require_tile(tile: int | None) -> None:
    if tile is not None and tile < 2 * OVERLAP:
        raise ConfigError(f"'tile' must be at least {2 * OVERLAP} pixels, got {tile}")


def fitting_tile(network: nn.Module, frames: int, height: int, width: int) -> int | None:
    """Estimate the largest tile that takes at most half of the device's memory, from the memory of a small window.

    Args:
        network: to run.
        frames: length of its window.
        height: of the frames.
        width: of the frames.

    Returns:
        The side of the tile in pixels; None if whole frames take at most half of the memory.
    """
    like = next(network.parameters())
    window = like.new_zeros(1, frames, 3, PROBE, PROBE)
    with torch.no_grad():
        taken = footprint(lambda: network(window), [*network.parameters(), *network.buffers()]).memory
    pixels = int(memory(like.device) / 2 / taken * PROBE**2)
    return None if height * width <= pixels else max(math.isqrt(pixels), 2 * OVERLAP)


def memory(device: torch.device) -> int:
    """Return the total memory of a device in bytes; for the CPU, what the machine or the container has."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return total_memory()


def _makes(
    network: nn.Module, clip: Iterable[Tensor], frames: int, tile: int | None, bfloat16: bool, cuts: Collection[int]
) -> Iterator[Make]:
    """Yield for each frame a function that derains it. Those that are not called cost no more than to read a frame."""
    like = next(network.parameters())
    narrow = torch.autocast(like.device.type, torch.bfloat16, enabled=bfloat16)
    # Only whole frames have the same features in every window.
    describe = getattr(network, "describe", None) if tile is None else None

    @torch.no_grad()
    def see(frame: Tensor) -> Seen:
        height, width = frame.shape[1:]
        beyond = (0, max(SMALLEST - width, 0), 0, max(SMALLEST - height, 0))
        pixels = F.pad(frame.to(like) / 255, beyond, mode="replicate")
        with narrow, channels_last(network), memory_kept():
            return Seen(pixels, describe(pixels[None, None]) if describe is not None else [])

    def derained(window: list[Awaited], size: torch.Size) -> Derained:
        seen = [awaited.seen for awaited in window]
        with narrow, channels_last(network), memory_kept():
            return _derain_window(network, seen, size, tile)

    for shot in _shots(clip, cuts):
        before: list[Awaited] = []
        for size, window, twin in _windows(shot, frames, see):
            if not twin or any(map(operator.is_not, window, before)):
                make = functools.cache(partial(derained, window, size))
            before = window
            yield partial(_marked, make, twin)


def _marked(make: Make, twin: bool) -> Derained:
    return make()._replace(twin=twin)


def _shots(clip: Iterable[Tensor], cuts: Collection[int]) -> Iterator[Iterator[Tensor]]:
    """Divide a clip into shots, frame by frame."""
    shots = itertools.accumulate(index in cuts for index in itertools.count())
    return (map(itemgetter(1), shot) for _, shot in itertools.groupby(zip(shots, clip, strict=False), itemgetter(0)))


def _windows(
    clip: Iterable[Tensor], frames: int, see: Callable[[Tensor], Seen]
) -> Iterator[tuple[torch.Size, list[Awaited], bool]]:
    """Yield the size of every frame, the window of different frames around it, and whether it is a twin.

    The clip is reflected at its ends.
    """
    held: deque[list[Awaited]] = deque(maxlen=frames)
    source, seen = _groups(clip), 0
    for centre in itertools.count():
        for group in itertools.islice(source, centre + frames // 2 + 1 - seen):
            size = group[0].shape[1:]
            first = Awaited(group[0], see)
            held.append([first, *(first if torch.equal(twin, group[0]) else Awaited(twin, see) for twin in group[1:])])
            seen += 1
        if centre == seen:
            return
        indices = window_indices(centre, seen, frames)
        for number, own in enumerate(held[centre - seen]):
            yield size, [own if i == centre else held[i - seen][0] for i in indices], number > 0


def _groups(clip: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Yield each frame with the twins that follow it."""
    group: list[Tensor] = []
    for frame, twin in mark_twins(clip):
        if group and not twin:
            yield group
            group = []
        group.append(frame)
    if group:
        yield group


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
    """Cover a length with spans of `tile`; neighbours share at least the overlap."""
    if length <= tile:
        return [slice(0, length)]
    count = -(-(length - OVERLAP) // (tile - OVERLAP))
    starts = [round(i * (length - tile) / (count - 1)) for i in range(count)]
    return [slice(start, start + tile) for start in starts]


def _fade(span: slice, length: int) -> Tensor:
    """Compute weights that fall linearly over the overlap with each neighbour."""
    size = span.stop - span.start
    ramp = ((torch.arange(size) + 1) / (OVERLAP + 1)).clamp(max=1)
    fade = ramp if span.start > 0 else torch.ones(size)
    return torch.minimum(fade, ramp.flip(0)) if span.stop < length else fade
