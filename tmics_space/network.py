"""The deraining network and its data flow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.errors import ConfigError
from tmics_space.alignment import OpticalFlow
from tmics_space.averaging import Averaging
from tmics_space.flow import Described


class Restored(NamedTuple):
    """The derained centre frames, not clamped to [0, 1]. Images are `(batch, 3, height, width)`."""

    output: Tensor
    """weight dominant + (1 - weight) companion"""
    dominant: Tensor
    companion: Tensor
    weight: Tensor
    """λ in [0, 1], `(batch, 1 or 3, 1 or height, 1 or width)`"""
    photometric: Tensor
    """The photometric term of the alignment, a scalar."""


def restore(network: nn.Module, *inputs: Any) -> Restored:
    """Run a network for deraining.

    Args:
        network: returns a `Restored`.
        inputs: its arguments.

    Returns:
        Its output.

    Raises:
        ConfigError: the network returns something else.
    """
    found: Restored = network(*inputs)
    # An exported network has a class of its own, so the names of the fields count.
    if not isinstance(found, tuple) or getattr(found, "_fields", ()) != Restored._fields:
        raise ConfigError(
            f"task 'derain': the network must return a tmics_space.network.Restored, got a {type(found).__name__}."
            " Change the output of the search space"
        )
    return found


class Route(nn.Module):
    """One of the two networks, DNA or CNA: frame + tanh(head(cells(x))).

    Args:
        cells: the searched cells.
        head: maps features to an image.

    Shape:
        Frame `(batch, 3, height, width)` and features x `(batch, channels, height / scale, width / scale)`, where
        `scale` is that of the head, to `(batch, 3, height, width)`.
    """

    wiring = (("input", "cells"), ("cells", "head"), ("head", "output"))
    """The data flow through the parts."""

    def __init__(self, cells: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.cells = cells
        self.head = head

    def forward(self, frame: Tensor, x: Tensor) -> Tensor:
        return frame + torch.tanh(self.head(self.cells(x)))


def _wiring(*, dna: bool, cna: bool, streaks: bool, concat: bool) -> Iterator[tuple[str, str]]:
    yield from (("frames", "alignment"), ("alignment", "frequency"))
    if dna and streaks:
        yield from (("frequency", "streaks"), ("streaks", "stem"))
        yield from (("frames" if concat else "frequency", "stem"), ("stem", "dna"))
    elif dna:
        yield ("frequency", "dna")
    if cna:
        yield ("frequency", "cna")
    if dna and cna:
        yield from (("dna", "averaging"), ("cna", "averaging"), ("averaging", "output"))
    else:
        yield ("dna" if dna else "cna", "output")


class Deraining(nn.Module):
    """The deraining network: aligns frames, splits features in frequency, restores with two networks, averages.

    The companion network (CNA) gets the features F. The dominant network (DNA) gets F + stem(R), with the rain layer
    R = streaks(F). With `concat` it gets stem(frame, frame - R) instead. Without `streaks` and `stem` it gets F.

    Both networks add a change d to the centre frame, so output - frame = λ d_dna + (1 - λ) d_cna. If one network is
    None, the other one is the output: both branches are equal, and λ is 1 for DNA and 0 for CNA.

    With `scale` 2, features and the rain layer have half the height and width of the frames. Frames of odd size are
    extended by a copy of their last row or column, which the results leave out.

    `forward` also takes `described`, the result of `describe` on the same frames, to reuse it.

    Args:
        alignment: maps frames to `tmics_space.alignment.Aligned`.
        frequency: maps features to features.
        streaks: maps features to a rain layer, or None.
        stem: maps the rain layer, or frame and difference, to features; None exactly if `streaks` is None.
        dna: the dominant network, or None.
        cna: the companion network, or None.
        averaging: averages the two branches; None exactly if one network is None.
        frames: length of the window that the alignment expects.
        concat: selects the input of DNA.
        scale: pixels of a frame, along each side, in one pixel of the features.

    Raises:
        ConfigError: these parts do not fit together.

    Shape:
        Frames `(batch, frames, 3, height, width)` in [0, 1] to `Restored`.
    """

    wiring: tuple[tuple[str, str], ...] = tuple(_wiring(dna=True, cna=True, streaks=True, concat=False))
    """The data flow from `frames` to `output`; that of an instance has only its own parts."""

    def __init__(
        self,
        *,
        alignment: nn.Module,
        frequency: nn.Module,
        streaks: nn.Module | None,
        stem: nn.Module | None,
        dna: Route | None,
        cna: Route | None,
        averaging: Averaging | None,
        frames: int = 5,
        concat: bool = False,
        scale: int = 1,
    ) -> None:
        super().__init__()
        if dna is None and cna is None:
            raise ConfigError("a deraining network must have 'dna', 'cna' or both, got neither")
        if (streaks is None) != (stem is None) or (dna is None and stem is not None):
            raise ConfigError("'streaks' and 'stem' must be given together, and only with 'dna'")
        if (averaging is None) != (dna is None or cna is None):
            raise ConfigError("'averaging' must be given if both 'dna' and 'cna' are, and only then")
        self.alignment = alignment
        self.frequency = frequency
        self.streaks = streaks
        self.stem = stem
        self.dna = dna
        self.cna = cna
        self.averaging = averaging
        self.frames = frames
        self.concat = concat
        self.scale = scale
        self.wiring = tuple(
            _wiring(dna=dna is not None, cna=cna is not None, streaks=streaks is not None, concat=concat)
        )

    def forward(self, frames: Tensor, described: Described | None = None) -> Restored:
        if self.scale == 1:
            return self._restored(frames, described)
        height, width = frames.shape[3:]
        restored = self._restored(self._extended(frames), described)
        images = (restored.output, restored.dominant, restored.companion)
        output, dominant, companion = (image[..., :height, :width] for image in images)
        return Restored(output, dominant, companion, restored.weight[..., :height, :width], restored.photometric)

    def _restored(self, frames: Tensor, described: Described | None) -> Restored:
        aligned, photometric = self.alignment(frames) if described is None else self.alignment(frames, described)
        features = self.frequency(aligned)
        frame = frames[:, self.frames // 2]
        branches: list[Tensor] = []
        if self.dna is not None:
            branches.append(self.dna(frame, self._dna_input(frame, features)))
        if self.cna is not None:
            branches.append(self.cna(frame, features))
        dominant, companion = branches[0], branches[-1]
        if self.averaging is None:
            weight = frame.new_full((frame.shape[0], 1, 1, 1), float(self.cna is None))
            return Restored(dominant, dominant, companion, weight, photometric)
        output, weight = self.averaging(dominant, companion)
        return Restored(output, dominant, companion, weight, photometric)

    def describe(self, frames: Tensor) -> Described:
        """Compute the per-frame features that the windows around neighbouring frames can share.

        Args:
            frames: `(batch, frames, 3, height, width)` in [0, 1].

        Returns:
            Tensors `(batch, frames, ...)`; an empty list if the alignment shares nothing.
        """
        flows = [module for module in self.alignment.modules() if isinstance(module, OpticalFlow)]
        return flows[0].describe(self._extended(frames)) if len(flows) == 1 else []

    def _extended(self, frames: Tensor) -> Tensor:
        """Repeat the last row and column until the scale divides height and width."""
        height, width = frames.shape[3:]
        fits = self.scale == 1 or not (torch.compiler.is_compiling() or height % self.scale or width % self.scale)
        if fits:  # an exported program has to serve any size
            return frames
        beyond = (0, -width % self.scale, 0, -height % self.scale)
        extended = F.pad(frames.flatten(0, 1), beyond, mode="replicate")
        return extended.view(*frames.shape[:3], *extended.shape[2:])

    def _dna_input(self, frame: Tensor, features: Tensor) -> Tensor:
        if self.streaks is None or self.stem is None:
            return features
        rain: Tensor = self.streaks(features)
        if self.concat and self.scale > 1:
            rain = F.interpolate(rain, scale_factor=float(self.scale), mode="nearest")
            rain = F.pixel_unshuffle(torch.cat((frame, frame - rain), 1), self.scale)
        elif self.concat:
            rain = torch.cat((frame, frame - rain), 1)
        stemmed: Tensor = self.stem(rain)
        return stemmed if self.concat else features + stemmed
