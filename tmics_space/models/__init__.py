"""The models that ship with this package: a folder for each, found through the entry points `nas.models`."""

from __future__ import annotations

from pathlib import Path


def tmics_compact() -> Path:
    """Return the folder of `tmics-compact`, the network that derains by default."""
    return Path(__file__).with_name("tmics-compact")
