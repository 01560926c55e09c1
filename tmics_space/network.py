"""The deraining network: its parts, and how data flows through them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
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
    """Run a network for deraining; raises `ConfigError` for one that returns something else than a `Restored`."""
    found: Restored = network(*inputs)
    if not isinstance(found, tuple) or getattr(found, "_fields", ()) != Restored._fields:  # an exported one has its own
        raise ConfigError(
            f"task 'derain': the network must return a tmics_space.network.Restored, got a {type(found).__name__};"
            " change what the search space returns"
        )
    return found


class Route(nn.Module):
    """frame + tanh(head(cells(x))): one of the two networks, DNA or CNA, by its searched cells.

    forward: the frame `(batch, 3, height, width)` and x `(batch, channels, height, width)` to an image like the frame.
    """

    wiring = (("input", "cells"), ("cells", "head"), ("head", "output"))
    """The flow of data through the parts."""

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
    """Aligned features, split in frequency, restored by a dominant (DNA) and a companion network (CNA), and averaged.

    CNA sees the features; DNA sees features + stem(R), where R is the rain layer that `streaks` makes of the features.
    With `concat` it sees stem(frame, frame - R) instead, and without `streaks` and `stem` (no M) the features. Both
    networks add to the centre frame, so the output less that frame is λ d_dna + (1 - λ) d_cna. With `dna` or `cna` None
    the missing branch equals the present one, which is the output; the weight is 0 or 1, and there is no `averaging`.

    forward: `(batch, frames, 3, height, width)` in [0, 1] to `Restored`. Raises `ConfigError` for parts that do not fit
    together; `frames` is the length of the window that the alignment expects, and `described` what `describe` says of
    the frames, where it is known already.
    """

    wiring: tuple[tuple[str, str], ...] = tuple(_wiring(dna=True, cna=True, streaks=True, concat=False))
    """The flow of data through the parts, from `frames` to `output`; a network's own leaves out what it lacks."""

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
    ) -> None:
        super().__init__()
        if dna is None and cna is None:
            raise ConfigError("a deraining network has a dominant branch (dna), a companion branch (cna) or both")
        if (streaks is None) != (stem is None) or (dna is None and stem is not None):
            raise ConfigError("'streaks' and 'stem' come together, and only with the dominant branch (dna)")
        if (averaging is None) != (dna is None or cna is None):
            raise ConfigError("'averaging' is for two branches: with both 'dna' and 'cna', and only then")
        self.alignment = alignment
        self.frequency = frequency
        self.streaks = streaks
        self.stem = stem
        self.dna = dna
        self.cna = cna
        self.averaging = averaging
        self.frames = frames
        self.concat = concat
        self.wiring = tuple(
            _wiring(dna=dna is not None, cna=cna is not None, streaks=streaks is not None, concat=concat)
        )

    def forward(self, frames: Tensor, described: Described | None = None) -> Restored:
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
        """What can be said of each frame of `(batch, frames, 3, height, width)` by itself, for the windows it is in."""
        flows = [module for module in self.alignment.modules() if isinstance(module, OpticalFlow)]
        return flows[0].describe(frames) if len(flows) == 1 else []

    def _dna_input(self, frame: Tensor, features: Tensor) -> Tensor:
        if self.streaks is None or self.stem is None:
            return features
        rain = self.streaks(features)
        stemmed: Tensor = self.stem(torch.cat((frame, frame - rain), 1) if self.concat else rain)
        return stemmed if self.concat else features + stemmed
