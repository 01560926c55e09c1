"""Frames beyond the memory that they may take: a temporary file, mapped into memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from nas.files import writing

LARGEST = 2**30
"""The size up to which stacked frames are in memory, in bytes."""


def stacked(frames: Iterable[Tensor]) -> Tensor:
    """Stack tensors uint8 of one shape, as `torch.stack` does, in constant memory.

    Those of more than `LARGEST` bytes are in a temporary file without a name, which the system reads where they are
    used. It ends with the last tensor that shows part of it.

    Raises:
        InvalidFileError: the folder for temporary files (`TMPDIR`) is full.
        RuntimeError: there are no frames, or their shapes differ.
    """
    stream, kept, size = iter(frames), list[Tensor](), 0
    for frame in stream:
        kept.append(frame)
        size += frame.numel()
        if size > LARGEST:
            break
    else:
        return torch.stack(kept)
    folder, shape, count = tempfile.gettempdir(), kept[0].shape, 0
    with writing(folder), tempfile.TemporaryFile() as file:
        for frame in chain(kept, stream):
            if frame.shape != shape:
                raise RuntimeError(f"frames must be of shape {tuple(shape)}, got {tuple(frame.shape)}")
            file.write(frame.contiguous().numpy().data)
            count += 1
        file.flush()
        return torch.from_numpy(np.memmap(file, np.uint8, "r+", shape=(count, *shape)))


def chosen(frames: Tensor, indices: Sequence[int]) -> Tensor:
    """Some frames of `(frames, ...)` uint8 in constant memory; those that follow one another are not copied."""
    start = indices[0]
    if list(indices) == list(range(start, start + len(indices))):
        return frames[start : start + len(indices)]
    return stacked(frames[index] for index in indices)
