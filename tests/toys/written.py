"""Modules that are files: what an export wrote, or a program beside the packages."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def imported(path: Path, patch: pytest.MonkeyPatch | None = None) -> ModuleType:
    """Import a file; its module is known by its name while it loads, with `patch` until the test ends."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as loading:
        (patch or loading).setitem(sys.modules, path.stem, module)
        spec.loader.exec_module(module)
    return module
