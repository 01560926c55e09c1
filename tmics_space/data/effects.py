"""What is drawn for each window of a clean clip: camera motion, rain, twins and the artefacts of lossy files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from tmics_space.data.compression import NO_COMPRESSION, Compression
from tmics_space.data.motion import CameraMotion, moving_window
from tmics_space.data.rainfall import DrawnRain, RainPreset, rain
from tmics_space.data.stored import Frames
from tmics_space.data.windowing import View

_BLOCK = 16  # side of a block of JPEG and H.264 with halved colours, in px


@dataclass(frozen=True)
class Effects:
    """What is drawn for a window; all of it is a function of the random numbers."""

    rain: DrawnRain
    motion: CameraMotion | None = None
    twins: float = 0.0
    """Share of the windows in which one frame is shown twice."""
    compression: Compression = NO_COMPRESSION

    def window(self, clip: Frames, indices: list[int], view: View, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Draw the rainy and the clean window.

        Args:
            clip: the clean clip; one frame is a photograph.
            indices: of the frames in the window.
            view: the part of the frames that is seen, if no synthetic camera moves.
            rng: the source of random numbers.

        Returns:
            Rainy and clean frames, `(len(indices), 3, view.height, view.width)` uint8 each.

        Raises:
            ConfigError: the frames are too small for a moving view.
        """
        lead = rng.integers(_BLOCK, size=2) if self.compression else (0, 0)  # blocks begin anywhere in the view
        top, left = (min(int(most), at) for most, at in zip(lead, (view.top, view.left), strict=True))
        still = len(clip) == 1
        if self.motion is not None and (still or rng.random() < self.motion.share):
            size = view.height + top, view.width + left
            order = indices[::-1] if view.backwards else indices
            clean = moving_window(clip, order, size, self.motion, rng)
            clean = clean.flip(-1) if view.mirror else clean
        else:
            room = view._replace(
                top=view.top - top, left=view.left - left, height=view.height + top, width=view.width + left
            )
            clean = room.of(clip, indices)
        rainy, clean = self._files(clean, rng)
        seen = (..., slice(top, None), slice(left, None))
        return rainy[seen], clean[seen]

    def _files(self, clean: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Add rain, twins and artefacts."""
        preset: RainPreset | None = self.rain.draw(rng)
        rainy = clean if preset is None else rain(clean, preset, int(rng.integers(2**62)))
        if rng.random() < self.twins:
            order = _with_twin(len(clean), rng)
            rainy, clean = rainy[order], clean[order]
        return self.compression.apply(rainy, clean, rng)

    def clip(self, clean: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Draw the rainy and the clean version of a whole clip, `(frames, 3, height, width)` uint8, without twins."""
        preset = self.rain.draw(rng)
        rainy = clean if preset is None else rain(clean, preset, int(rng.integers(2**62)))
        return self.compression.apply(rainy, clean, rng)


def _with_twin(count: int, rng: np.random.Generator) -> list[int]:
    """Repeat one frame in place of an end: 0, 1, 1, 2, 3 or 1, 2, 3, 3, 4."""
    if count < 3:
        return list(range(count))
    order = sorted([*range(count), int(rng.integers(1, count - 1))])
    return order[:count] if rng.random() < 0.5 else order[1:]
