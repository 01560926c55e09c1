"""The named tuples that DARTS (Liu et al., ICLR 2019) and its followers print: `Genotype(normal=[...], ...)`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas import Genotype
from nas.errors import ConfigError
from nas.genotype import Choice
from nas.importing import InEdge, cell_choices
from nas.literals import Call, find_calls, items, pick, token
from nas.primitives import DARTS

FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")
CELLS = ("normal", "reduce")
INPUTS = 2

EVALUATION: Mapping[str, Any] = {"channels": 36, "cells": 20, "affine": True, "operations": "darts-evaluation"}
"""The options of the networks that the published cells are evaluated in (sec. 4.1 of the paper)."""

OPERATIONS = {name: name for name in DARTS}


def read(text: str, *, name: str | None = None, **options: Any) -> Genotype:
    """The genotype in Python source with `NAME = Genotype(normal=..., normal_concat=..., reduce=..., ...)`.

    Each cell is a list of (operation, source) pairs, two for each node. The options are those of the published
    networks, unless given otherwise. Raises `ConfigError` that names the line and the token.
    """
    call = pick(find_calls(text, "Genotype", FIELDS), "Genotype", name)
    return genotype({cell: _nodes(call, cell) for cell in CELLS}, OPERATIONS, options)


def genotype(
    cells: Mapping[str, Sequence[Sequence[InEdge]]], operations: Mapping[str, str], options: Mapping[str, Any]
) -> Genotype:
    """The genotype of two cells, each of nodes that each have two in-edges."""
    counts = [len(cells[cell]) for cell in CELLS]
    if counts[0] != counts[1] or not counts[0]:
        raise ConfigError(
            f"a normal cell of {counts[0]} nodes and a reduction cell of {counts[1]}, expected equal ones"
        )
    choices: dict[str, Choice] = {}
    for cell in CELLS:
        choices |= cell_choices(cell, enumerate(cells[cell], INPUTS), operations)
    return Genotype(space="darts", choices=choices, options={**EVALUATION, "nodes": counts[0], **options})


def _nodes(call: Call, cell: str) -> list[list[InEdge]]:
    pairs = [items(pair, cell, 2) for pair in call.items(cell)]
    if len(pairs) % 2:
        raise ConfigError(f"{call.where}: '{cell}' has {len(pairs)} in-edges, expected two for each node")
    edges = [(token(source), token(operation)) for operation, source in pairs]
    nodes = [edges[i : i + 2] for i in range(0, len(edges), 2)]
    states = list(range(INPUTS, INPUTS + len(nodes)))
    concatenated = [token(state) for state in call.items(f"{cell}_concat")]
    if [state.value for state in concatenated] != states:
        found = ", ".join(str(state.value) for state in concatenated)
        raise ConfigError(
            f"{call.where}: '{cell}_concat' is {found}, expected all nodes: {', '.join(map(str, states))}"
        )
    return nodes
