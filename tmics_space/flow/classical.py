"""Classical optical flow, without training."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nas.errors import ConfigError, MissingPackageError

SMALLEST = 12
"""The least height and width in pixels: DIS detects no motion along a smaller side."""


class DenseInverseSearch(nn.Module):
    """OpenCV's dense inverse search (preset medium) on grey frames; not differentiable.

    Args:
        cache: number of pairs of frames whose flows stay in memory.

    Raises:
        MissingPackageError: in a forward pass, OpenCV is not installed.
        ConfigError: in a forward pass, height or width is below 12 pixels.

    Shape:
        Reference and neighbour `(batch, 3, height, width)` in [0, 1] to `(batch, 2, height, width)` in pixels.

    References:
        Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016.
    """

    def __init__(self, cache: int = 64) -> None:
        super().__init__()
        self.cache = cache
        self._flows: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()

    @torch.no_grad()
    def forward(self, reference: Tensor, neighbour: Tensor) -> Tensor:
        if reference.is_meta:  # counters of costs run on the meta device; OpenCV's work has no FLOPs there
            return reference.new_empty(len(reference), 2, *reference.shape[2:])
        if min(reference.shape[2:]) < SMALLEST:
            height, width = reference.shape[2:]
            raise ConfigError(
                f"frames for flow 'dis' must have at least {SMALLEST} pixels a side, got {height} x {width}"
            )
        flows = [self._flow(a, b) for a, b in zip(_grey(reference), _grey(neighbour), strict=True)]
        return torch.from_numpy(np.stack(flows)).permute(0, 3, 1, 2).to(reference)

    def _flow(self, reference: NDArray[np.uint8], neighbour: NDArray[np.uint8]) -> NDArray[np.float32]:
        content = repr(reference.shape).encode() + reference.tobytes() + neighbour.tobytes()
        key = hashlib.blake2b(content).digest()
        if key not in self._flows:
            self._flows[key] = _search(reference, neighbour)
        self._flows.move_to_end(key)
        while len(self._flows) > max(self.cache, 1):
            self._flows.popitem(last=False)
        return self._flows[key]


def _grey(frames: Tensor) -> NDArray[np.uint8]:
    """Compute luma (ITU-R BT.601): `(batch, 3, height, width)` in [0, 1] to `(batch, height, width)` bytes."""
    luma = torch.einsum("c,bchw->bhw", frames.new_tensor((0.299, 0.587, 0.114)), frames)
    grey: NDArray[np.uint8] = (luma.float() * 255).round().clamp(0, 255).byte().cpu().numpy()
    return grey


def _search(reference: NDArray[np.uint8], neighbour: NDArray[np.uint8]) -> NDArray[np.float32]:
    try:
        import cv2
    except ImportError as error:
        raise MissingPackageError("flow 'dis' needs OpenCV", "flow") from error
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    start = np.zeros((*reference.shape, 2), np.float32)
    return np.asarray(search.calc(reference, neighbour, start), np.float32)
