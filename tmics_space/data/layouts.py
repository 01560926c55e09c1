"""Descriptions of paired data sets as they lie on disk: data, from a YAML file, not code."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from nas.errors import UnknownNameError
from nas.files import convert, parse_yaml, read_text
from nas.registry import Kind
from tmics_space.data.frames import IMAGE_SUFFIXES

_SHIPPED = Path(__file__).with_name("layouts.yaml")


class Split(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Paths below the root of the rainy and the clean frames, or video files, without suffix: see `Layout`."""

    rain: str
    truth: str


class Layout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A paired data set. A path's parts are regular expressions with the placeholders {clip}, {frame}, {version}.

    A path without {frame} is that of video files, one without {clip} that of a single clip.

    splits: one pair of paths for each, or several, of which the first that finds pairs counts.
    clip, frame: the regular expressions of these names; a frame's is of digits, read as an integer.
    start: frames of a lower number are left out.
    crop: frames are cut at the right and the bottom to a multiple of it, in px.
    """

    splits: dict[str, Split | tuple[Split, ...]]
    summary: str = ""
    clip: str = r"[^/]+"
    frame: str = r"\d+"
    start: int = 0
    crop: Annotated[int, msgspec.Meta(ge=1)] = 1
    suffixes: tuple[str, ...] = IMAGE_SUFFIXES

    def __post_init__(self) -> None:
        for name in self.splits:
            for split in self.split(name):
                rain, truth = (
                    {key for part in path.split("/") for key in self.pattern(part).groupindex} - {"version"}
                    for path in (split.rain, split.truth)
                )
                if lacking := sorted(rain ^ truth):
                    path = split.rain if lacking[0] in truth else split.truth
                    raise ValueError(f"splits.{name}: '{path}' has no {{{lacking[0]}}}, unlike its partner")

    def pattern(self, part: str) -> re.Pattern[str]:
        """The compiled regular expression of one part of a path."""
        names = {
            "{clip}": f"(?P<clip>{self.clip})",
            "{frame}": f"(?P<frame>{self.frame})",
            "{version}": r"(?P<version>\w+)",
        }
        text = functools.reduce(lambda text, name: text.replace(name, names[name]), names, part)
        try:
            return re.compile(text)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"'{part}' is not a regular expression: {error}") from error

    def split(self, name: str) -> tuple[Split, ...]:
        """Where its pairs may be. Raises `UnknownNameError`."""
        if name not in self.splits:
            raise UnknownNameError("split", name, self.splits)
        found = self.splits[name]
        return (found,) if isinstance(found, Split) else found


def find_layout(layout: str | Path | Layout) -> Layout:
    """A layout by its name in `LAYOUTS`, one described in a YAML file of the user, or the layout itself.

    Raises `UnknownNameError`, or `InvalidFileError` for a file that is not of this form.
    """
    if isinstance(layout, Layout):
        return layout
    if Path(layout).suffix in (".yaml", ".yml"):
        return _read(Path(layout), Layout)
    found: Layout = LAYOUTS.find(str(layout))
    return found


T = TypeVar("T")


def _read(path: Path, kind: type[T]) -> T:
    return convert(parse_yaml(read_text(path), str(path)), kind, str(path))


LAYOUTS = Kind("layout", "tmics.layouts", expected="a Layout", accepts=lambda value: isinstance(value, Layout))
"""Layouts of paired data sets, for `layout` in the task's data: the shipped ones, and those that packages offer."""

for _name, _layout in _read(_SHIPPED, dict[str, Layout]).items():
    LAYOUTS.add(_name, _layout, f"{__name__}:{_name}")
