"""Weights that ship with this package, for parts of networks to begin with: found by the entry points `nas.weights`.

Beside each file lies a page about it: licence, data, recipe, scores.
"""

from __future__ import annotations

from pathlib import Path


def compact_flow() -> Path:
    """Return the file of `tmics-compact-flow`: the optical flow that the configuration `compact` begins with."""
    return Path(__file__).with_name("compact-flow.safetensors")
