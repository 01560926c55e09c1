"""The list of mutations fits the code: each changes one place, and names tests that exist."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import msgspec

ROOT = Path(__file__).parents[2]


def test_every_mutation_is_found(load_tool: Callable[[str], ModuleType]) -> None:
    tool = load_tool("mutations")
    mutations = msgspec.yaml.decode(tool.LIST.read_bytes(), type=list[tool.Mutation])
    assert len(mutations) >= 57
    assert len({mutation.where for mutation in mutations}) == len(mutations)
    for mutation in mutations:
        tool.mutated(ROOT, mutation)
        tool.located(ROOT, mutation.tests)
