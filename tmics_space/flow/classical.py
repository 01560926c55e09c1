"""Classical optical flow, for comparison and for those who do not want to learn one."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nas.errors import ConfigError
from tmics_space.flow.provider import flow_provider

SMALLEST = 12
"""DIS refuses frames whose height and width are both smaller, and cannot see motion in either that is."""


@flow_provider("dis")
class DenseInverseSearch(nn.Module):
    """OpenCV's dense inverse search (Kroeger et al., ECCV 2016, preset medium) on the grey frames; not differentiable.

    The flows of the last `cache` different pairs of frames are kept. Raises `ConfigError` without OpenCV, and for
    frames under 12 pixels.
    """

    def __init__(self, cache: int = 64) -> None:
        super().__init__()
        self.cache = cache
        self._flows: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()

    @torch.no_grad()
    def forward(self, reference: Tensor, neighbour: Tensor) -> Tensor:
        if reference.is_meta:  # where costs are counted; this one has none that counts
            return reference.new_empty(len(reference), 2, *reference.shape[2:])
        if min(reference.shape[2:]) < SMALLEST:
            height, width = reference.shape[2:]
            raise ConfigError(f"flow 'dis' needs frames of at least {SMALLEST} pixels, found {height} x {width}")
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
    """The luma (ITU-R BT.601) of frames `(batch, 3, height, width)` in [0, 1], as `(batch, height, width)` bytes."""
    luma = torch.einsum("c,bchw->bhw", frames.new_tensor((0.299, 0.587, 0.114)), frames)
    grey: NDArray[np.uint8] = (luma.float() * 255).round().clamp(0, 255).byte().cpu().numpy()
    return grey


def _search(reference: NDArray[np.uint8], neighbour: NDArray[np.uint8]) -> NDArray[np.float32]:
    try:
        import cv2
    except ImportError as error:
        raise ConfigError("flow 'dis' needs OpenCV: pip install 'tmics-nas[flow]'") from error
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    start = np.zeros((*reference.shape, 2), np.float32)
    return np.asarray(search.calc(reference, neighbour, start), np.float32)
