"""Frames in half the memory: luminance whole, colours at half the size, as films hold them (4:2:0)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor

from tmics_space.data.mapped import chosen, stacked

# ITU-T T.871 (JFIF): luminance and colour differences in the full range of 8 bits.
_TO_YCC = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
_TO_RGB = torch.tensor([[1.0, 0.0, 1.402], [1.0, -0.344136, -0.714136], [1.0, 1.772, 0.0]])


@dataclass(frozen=True, eq=False)
class PackedFrames:
    """Frames of a film in 1.5 bytes a pixel; indexing unpacks them: `frames[2:5]` is `(frames, 3, height, width)`.

    A grey frame returns unchanged; colours lose half their resolution, which films in 4:2:0 never had.
    """

    light: Tensor
    """`(frames, height, width)` uint8."""
    colour: Tensor
    """`(frames, 2, ceil(height / 2), ceil(width / 2))` uint8."""

    @staticmethod
    def pack(frames: Iterable[Tensor]) -> PackedFrames:
        """Pack frames, `(3, height, width)` uint8 each, one after the other."""
        stream = iter(frames)
        first = next(stream)
        (height, width), pixels = first.shape[1:], first[0].numel()
        rows = stacked(_pack(frame) for frame in chain([first], stream))
        return PackedFrames(
            rows[:, :pixels].view(-1, height, width),
            rows[:, pixels:].view(-1, 2, -(-height // 2), -(-width // 2)),
        )

    @property
    def shape(self) -> torch.Size:
        """`(frames, 3, height, width)`"""
        return torch.Size((len(self.light), 3, *self.light.shape[1:]))

    def __len__(self) -> int:
        return len(self.light)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index : index + 1][0] for index in range(len(self)))

    def __getitem__(self, which: slice | Sequence[int]) -> Tensor:
        indices = range(len(self))[which] if isinstance(which, slice) else which
        return self.region(list(indices), 0, 0, *self.shape[2:])

    def select(self, indices: Sequence[int]) -> PackedFrames:
        """Some frames, packed; those that follow one another are not copied."""
        return PackedFrames(chosen(self.light, indices), chosen(self.colour, indices))

    def region(self, indices: Sequence[int], top: int, left: int, height: int, width: int) -> Tensor:
        """Unpack a region of some frames: `(len(indices), 3, height, width)` uint8."""
        above, before = top // 2, left // 2
        rows, columns = slice(above, (top + height + 1) // 2), slice(before, (left + width + 1) // 2)
        colour = self.colour[:, :, rows, columns][indices].repeat_interleave(2, 2).repeat_interleave(2, 3)
        down, right = top - 2 * above, left - 2 * before
        colour = colour[..., down : down + height, right : right + width]
        light = self.light[:, top : top + height, left : left + width][indices]
        both = torch.cat([light[:, None], colour], 1).float()
        both[:, 1:] -= 128
        return torch.einsum("rc,nchw->nrhw", _TO_RGB, both).round_().clamp_(0, 255).to(torch.uint8)


def _pack(frame: Tensor) -> Tensor:
    """The luminance and the colours of a frame, in one row."""
    ycc = torch.einsum("rc,chw->rhw", _TO_YCC, frame.float())
    colour = F.avg_pool2d(ycc[1:], 2, ceil_mode=True, count_include_pad=False) + 128
    return torch.cat([ycc[0].flatten(), colour.flatten()]).round_().clamp_(0, 255).to(torch.uint8)
