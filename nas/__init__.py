"""Differentiable neural architecture search in PyTorch: write the network once, search, derive, retrain.

The names below are the package's API. They are loaded when first used, so that `import nas` does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.cell import Cell, Chain
    from nas.choose import Chooser
    from nas.errors import NASError
    from nas.genotype import Genotype
    from nas.operations import OperationSet, operation
    from nas.space import SearchSpace, find_space, search_space
    from nas.supernet import Supernet

__all__ = [
    "Cell",
    "Chain",
    "Chooser",
    "Genotype",
    "NASError",
    "OperationSet",
    "SearchSpace",
    "Supernet",
    "find_space",
    "operation",
    "search_space",
]

_MODULES = {
    "Cell": "cell",
    "Chain": "cell",
    "Chooser": "choose",
    "Genotype": "genotype",
    "NASError": "errors",
    "OperationSet": "operations",
    "SearchSpace": "space",
    "Supernet": "supernet",
    "find_space": "space",
    "operation": "operations",
    "search_space": "space",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'nas' has no attribute '{name}'")
    return getattr(importlib.import_module(f"nas.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
