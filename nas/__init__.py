"""Differentiable neural architecture search in PyTorch: write the network once, search, derive, retrain.

The names below are the package's API, and each docstring has an example. They are loaded when first used, so that
`import nas` does not import torch. Modules too are imported when first looked up: `nas.space.cell` works after
`import nas`. This module imports nothing of the package; start reading with `nas.front`.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.errors import NASError
    from nas.front.planning import plan
    from nas.front.results import RetrainResult, SearchResult, load
    from nas.front.running import evaluate, predict, retrain, search
    from nas.front.scored import evaluate_files
    from nas.genotype.file import Genotype
    from nas.multilevel.levels import Levels, level
    from nas.registry import register
    from nas.run.config import Config, load_config
    from nas.run.datasets import task_of
    from nas.run.observer import Observer
    from nas.run.task import Task
    from nas.space.cell import Cell, Chain
    from nas.space.chooser import Chooser
    from nas.space.definition import SearchSpace, find_space, search_space
    from nas.space.operations import OperationSet, operation
    from nas.supernet import Supernet

    __version__: str

__all__ = [
    "Cell",
    "Chain",
    "Chooser",
    "Config",
    "Genotype",
    "Levels",
    "NASError",
    "Observer",
    "OperationSet",
    "RetrainResult",
    "SearchResult",
    "SearchSpace",
    "Supernet",
    "Task",
    "evaluate",
    "evaluate_files",
    "find_space",
    "level",
    "load",
    "load_config",
    "operation",
    "plan",
    "predict",
    "register",
    "retrain",
    "search",
    "search_space",
    "task_of",
]

_MODULES = {
    "Cell": "space.cell",
    "Chain": "space.cell",
    "Chooser": "space.chooser",
    "Config": "run.config",
    "Genotype": "genotype.file",
    "Levels": "multilevel.levels",
    "NASError": "errors",
    "Observer": "run.observer",
    "OperationSet": "space.operations",
    "RetrainResult": "front.results",
    "SearchResult": "front.results",
    "SearchSpace": "space.definition",
    "Supernet": "supernet",
    "Task": "run.task",
    "evaluate": "front.running",
    "evaluate_files": "front.scored",
    "find_space": "space.definition",
    "level": "multilevel.levels",
    "load": "front.results",
    "load_config": "run.config",
    "operation": "space.operations",
    "plan": "front.planning",
    "predict": "front.running",
    "register": "registry",
    "retrain": "front.running",
    "search": "front.running",
    "search_space": "space.definition",
    "task_of": "run.datasets",
}


class _Package(ModuleType):
    """A package that imports its modules when they are first looked up; its own packages do the same."""

    def __getattr__(self, name: str) -> Any:
        from importlib.util import find_spec

        if name.startswith("_") or find_spec(f"{self.__name__}.{name}") is None:
            raise AttributeError(f"module '{self.__name__}' has no attribute '{name}'")
        return importlib.import_module(f"{self.__name__}.{name}")

    def __setattr__(self, name: str, value: Any) -> None:
        if type(value) is ModuleType and value.__name__ == f"{self.__name__}.{name}" and hasattr(value, "__path__"):
            value.__class__ = _Package
        super().__setattr__(name, value)


if not TYPE_CHECKING:  # else a type checker takes any name to exist

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from importlib import metadata

            return metadata.version("tmics-nas")
        if name not in _MODULES:
            raise AttributeError(f"module 'nas' has no attribute '{name}'")
        return getattr(importlib.import_module(f"nas.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})


sys.modules[__name__].__class__ = _Package
