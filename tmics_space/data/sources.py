"""Where a task's clips come from, as a configuration says it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import msgspec

from tmics_space.data.bundled import bundled_clip
from tmics_space.data.clips import Clip, load_clips, load_pairs
from tmics_space.data.motion import CameraMotion
from tmics_space.data.paired import paired_dataset
from tmics_space.data.rainfall import find_preset

PREFIX = "bundled:"

Count = Annotated[int, msgspec.Meta(ge=1)]


class Films(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="films"):
    """Clean films on which synthetic rain falls. Raises `UnknownNameError` for an unknown rain."""

    films: Annotated[dict[str, str], msgspec.Meta(min_length=1)]
    """By name: a video file, a folder of frames, a photograph, or `bundled:NAME` for a clip of the extra `demo`."""
    rain: str = "light25"
    rains: Count = 1
    """Rainy versions of each shot."""
    size: tuple[Count, Count] | None = None
    """Greatest height and width; larger frames are scaled down."""
    stride: Count = 1
    limit: Count | None = None
    """At most so many frames of a film."""
    motion: CameraMotion | None = None

    def __post_init__(self) -> None:
        find_preset(self.rain)  # now, and not when a network is trained and is to be scored

    def load(self, seed: int) -> list[Clip]:
        """The shots of the films with their rain; raises `InvalidFileError` or `ConfigError`."""
        return load_clips(
            {name: _film(source) for name, source in self.films.items()},
            self.rain,
            seed,
            rains=self.rains,
            size=self.size,
            stride=self.stride,
            limit=self.limit,
            motion=self.motion,
        )


class Pairs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="pairs"):
    """A data set of rainy clips and their ground truth."""

    root: str
    layout: str
    """A shipped description by name, or a YAML file with one."""
    split: str
    limit: Count | None = None
    """At most so many frames of a clip."""

    def load(self, seed: int) -> list[Clip]:
        """The clips; warns of what was skipped. `seed` makes no difference. Raises what `paired_dataset` does."""
        found = paired_dataset(self.root, self.layout, self.split)
        if found.skipped:
            shown = "; ".join(found.skipped[:3]) + ("; ..." if len(found.skipped) > 3 else "")
            warnings.warn(f"{self.root}: {len(found.skipped)} skipped for want of a partner: {shown}", stacklevel=2)
        return load_pairs(found.clips, self.limit)


def _film(source: str) -> Path:
    return bundled_clip(source.removeprefix(PREFIX)) if source.startswith(PREFIX) else Path(source)
