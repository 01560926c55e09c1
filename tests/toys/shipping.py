"""Tiny trained networks in folders, made into models, and packages that ship them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from nas.run import checkpoint
from nas.run.config import load_config
from nas.run.folder import CONFIG, GENOTYPE
from nas.run.retraining import WEIGHTS
from nas.space.definition import find_space

CARD = """\
---
summary: Removes nothing yet.
license: CC0-1.0
---
# Tiny

## Data
None.

## Recipe
Random weights.

## Scores
None.

## Limits
All.
"""

TINY: dict[str, Any] = {"channels": 2, "layers": 1, "flow": {"name": "pyramid", "width": 4}}


def tiny_run(folder: Path, **options: Any) -> Path:
    """The folder of a retraining of TMICS as it ends, with random weights."""
    config = load_config("demo", {f"options.{name}": value for name, value in {**TINY, **options}.items()})
    space = find_space("tmics")
    genotype = space.sample(torch.Generator().manual_seed(0), **config.options)
    network = space.derived(genotype)
    folder.mkdir(parents=True)
    (folder / CONFIG).write_text(config.dump(), encoding="utf-8")
    genotype.save(folder / GENOTYPE)
    checkpoint.save_weights(folder / WEIGHTS, network.state_dict())
    return folder


def card(folder: Path, text: str = CARD) -> Path:
    """The file of a card as its author writes it."""
    path = folder / "about.md"
    path.write_text(text, encoding="utf-8")
    return path


def offer(site: Path, **models: Path) -> Path:
    """A folder on the search path, as `pip install` leaves it, with a package that ships these models."""
    package, info = site / "shipping_models", site / "shipping_models-1.0.dist-info"
    for path in (package, info):
        path.mkdir(parents=True)
    lines = [f"def {name}():\n    return {str(folder)!r}\n" for name, folder in models.items()]
    (package / "__init__.py").write_text("\n".join(lines), encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shipping-models\nVersion: 1.0\n", encoding="utf-8")
    points = "".join(f"{name.replace('_', '-')} = shipping_models:{name}\n" for name in models)
    (info / "entry_points.txt").write_text(f"[nas.models]\n{points}", encoding="utf-8")
    return site
