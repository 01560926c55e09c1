"""The sources of clips in a configuration: clean films with synthetic rain, or paired data sets."""

from __future__ import annotations

import warnings
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, TypeAlias

import msgspec

from nas.errors import ConfigError, MissingFileError
from nas.files import listed
from nas.registry import Count
from tmics_space.data.bundled import bundled_clip
from tmics_space.data.clips import Clip, load_clips, load_pairs
from tmics_space.data.compression import Compression
from tmics_space.data.frames import IMAGE_SUFFIXES, clip_name
from tmics_space.data.motion import CameraMotion
from tmics_space.data.paired import paired_dataset
from tmics_space.data.rainfall import RainMix, find_preset
from tmics_space.data.rainfall.presets import Part
from tmics_space.data.video import READ_SUFFIXES

PREFIX = "bundled:"

Quality: TypeAlias = tuple[Annotated[int, msgspec.Meta(ge=1, le=95)], Annotated[int, msgspec.Meta(ge=1, le=95)]]
Factor: TypeAlias = tuple[Annotated[int, msgspec.Meta(ge=0, le=51)], Annotated[int, msgspec.Meta(ge=0, le=51)]]


class Films(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="films"):
    """Clean films with synthetic rain.

    Raises:
        UnknownNameError: no rain preset has this name.
        ConfigError: a range is reversed, or a share that needs a mixture has none.
    """

    films: (
        Annotated[dict[str, str], msgspec.Meta(min_length=1)] | Annotated[list[str], msgspec.Meta(min_length=1)] | str
    )
    """By name: a video file, a folder of frames, a photograph, or `bundled:NAME` for a clip of the extra `demo`. A list
    of them is named after their files, and `*` in a list stands for any letters. A single path is that of a folder with
    films."""
    root: str = ""
    """The folder to which paths are relative."""
    rain: str | RainMix = "light25"
    """A preset, drawn once for each clip; or a mixture, of which rain is drawn for each window."""
    rains: Count = 1
    """The number of rainy versions of each shot."""
    jpeg: Quality | None = None
    """Range of the quality at which rainy frames have been JPEG files."""
    h264: Factor | None = None
    """Range of the rate factor at which they have been a film in H.264; with `jpeg`, in one of ten."""
    compress_clean: Part = 0.0
    """Share of the windows whose clean side has been through the same files; only with a mixture."""
    twins: Part = 0.0
    """Share of the windows in which a frame is shown twice; only with a mixture."""
    photographs: Part | None = None
    """Share of the windows that come from photographs; only with a mixture. By default all clips are drawn equally."""
    size: tuple[Count, Count] | None = None
    """Greatest height and width; larger frames are scaled down."""
    stride: Count = 1
    """Reads every `stride`-th frame."""
    limit: Count | None = None
    """Greatest number of frames of a film."""
    motion: CameraMotion | None = None
    """Moves a synthetic camera; it needs `size`."""

    def __post_init__(self) -> None:
        if isinstance(self.rain, str):
            find_preset(self.rain)  # now, and not when a network is trained and is to be scored
            for name in ("twins", "compress_clean", "photographs"):
                if found := getattr(self, name):
                    raise ConfigError(f"'{name}' must be 0 unless 'rain' is a 'mix', got {found}")
        for name in ("jpeg", "h264"):
            if (bounds := getattr(self, name)) is not None and bounds[0] > bounds[1]:
                raise ConfigError(f"'{name}' must be a range from low to high, got {list(bounds)}")

    def load(self, seed: int) -> list[Clip]:
        """Load the shots of the films with their rain.

        Args:
            seed: of the rain and the motion.

        Raises:
            InvalidFileError: a film cannot be read.
            ConfigError: see `tmics_space.data.clips.load_clips`.
        """
        return load_clips(
            self.sources(),
            self.rain,
            seed,
            rains=self.rains,
            size=self.size,
            stride=self.stride,
            limit=self.limit,
            motion=self.motion,
            twins=self.twins,
            compression=Compression(self.jpeg, self.h264, self.compress_clean),
            photographs=self.photographs,
        )

    def sources(self) -> dict[str, Path]:
        """List the films by name.

        Raises:
            MissingFileError: a folder is missing.
            ConfigError: a pattern or a folder has no film, or two films have one name.
        """
        if isinstance(self.films, dict):
            return {name: self._path(source) for name, source in self.films.items()}
        named: dict[str, Path] = {}
        for path in self._paths():
            if (other := named.setdefault(name := clip_name(path), path)) is not path:
                raise ConfigError(f"names of films must be unique, got '{name}' for {other} and {path}")
        return named

    def _paths(self) -> list[Path]:
        if isinstance(self.films, str):
            return listed_films(self._path(self.films))
        paths = []
        for source in self.films:
            path = self._path(source)
            found = [path]
            if "*" in path.name:
                found = [each for each in listed(path.parent) if fnmatch(each.name, path.name)]
            if not found:
                raise ConfigError(f"task: films must match a file, got none for {path}")
            paths += found
        return paths

    def _path(self, source: str) -> Path:
        return bundled_clip(source.removeprefix(PREFIX)) if source.startswith(PREFIX) else Path(self.root, source)


class Pairs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="pairs"):
    """A data set of rainy clips and their ground truth."""

    root: str
    layout: str
    """A shipped layout by name, or a YAML file with one."""
    split: str
    limit: Count | None = None
    """Greatest number of frames of a clip."""

    def load(self, seed: int) -> list[Clip]:
        """Load the clips; warn if frames or clips are skipped.

        Args:
            seed: has no effect.

        Raises:
            UnknownNameError: no layout or split has this name.
            InvalidFileError: files are missing, cannot be read or do not match.
        """
        found = paired_dataset(self.root, self.layout, self.split)
        if found.skipped:
            shown = "; ".join(found.skipped[:3]) + ("; ..." if len(found.skipped) > 3 else "")
            warnings.warn(f"{self.root}: {len(found.skipped)} skipped, no matching partner: {shown}", stacklevel=2)
        return load_pairs(found.clips, self.limit)


def listed_films(folder: Path) -> list[Path]:
    """List the films of a folder: video files, photographs, and folders of frames.

    Raises:
        MissingFileError: there is no such folder.
        ConfigError: it holds no film.
    """
    if not folder.is_dir():
        raise MissingFileError(f"{folder}: no such folder; expected a folder of films")
    films = [
        path for path in listed(folder) if path.is_dir() or path.suffix.lower() in (*IMAGE_SUFFIXES, *READ_SUFFIXES)
    ]
    if not films:
        raise ConfigError(f"{folder}: a folder of films must hold a film, got none")
    return films
