"""The named tuples that DARTS (Liu et al., ICLR 2019) and its followers print: `Genotype(normal=[...], ...)`."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from nas import Genotype
from nas.errors import ConfigError
from nas.genotype import Choice
from nas.importing import InEdge, cell_choices
from nas.literals import Call, items, pick, token
from nas.primitives import DARTS

FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")
REFUSED = {"recurrent": "cells of recurrent networks are not supported, expected those of convolutional ones"}
CELLS = ("normal", "reduce")
INPUTS = 2

EVALUATION: Mapping[str, Any] = {"channels": 36, "cells": 20, "affine": True, "operations": "darts-evaluation"}
"""The options of the networks that the published cells are evaluated in (sec. 4.1 of the paper)."""

OPERATIONS = {name: name for name in DARTS}


def read(text: str, *, name: str | None = None, **options: Any) -> Genotype:
    """The genotype in Python source with `NAME = Genotype(normal=..., normal_concat=..., reduce=..., ...)`.

    Each cell is a list of (operation, source) pairs, two for each node, or of one such list for each node; a third
    item of a pair, its weight, has no effect. The text may be a line of a log, a dictionary or JSON. The options are
    those of the published networks, unless given otherwise. Raises `ConfigError` that names the line and the token.
    """
    call = pick(text, "Genotype", FIELDS, name, REFUSED)
    return genotype({cell: _nodes(call, cell) for cell in CELLS}, OPERATIONS, options)


def write(genotype: Genotype) -> str:
    """The text that `read` takes for a genotype of the space `darts`; raises `ConfigError` for one of another space."""
    if genotype.space != "darts":
        raise ConfigError(f"the genotype must be of space 'darts', got '{genotype.space}'")
    fields = []
    for cell in CELLS:
        nodes = {label: sources for label, sources in genotype.choices.items() if re.fullmatch(rf"{cell}/\d+", label)}
        edges = [
            (genotype.choices[f"{node}<-{source}"], source)
            for node in sorted(nodes, key=lambda label: int(label.rpartition("/")[2]))
            for source in cast(tuple[int, ...], nodes[node])
        ]
        fields.append(f"{cell}={edges}, {cell}_concat=range({INPUTS}, {INPUTS + len(nodes)})")
    return f"Genotype({', '.join(fields)})"


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
    entries = call.items(cell)
    if any(isinstance(_first(entry, cell), ast.Tuple | ast.List) for entry in entries):
        nodes = [[_edge(edge, cell) for edge in items(entry, cell)] for entry in entries]
    else:
        edges = [_edge(entry, cell) for entry in entries]
        nodes = [edges[i : i + 2] for i in range(0, len(edges), 2)]
    for number, node in enumerate(nodes, INPUTS):
        if len(node) != 2:
            raise ConfigError(f"{call.where}: node {number} of '{cell}' must have 2 in-edges, got {len(node)}")
    states = list(range(INPUTS, INPUTS + len(nodes)))
    concatenated = [token(state) for state in call.items(f"{cell}_concat")]
    if sorted(state.below(INPUTS + len(nodes)) for state in concatenated) != states:
        found = ", ".join(str(state.value) for state in concatenated)
        raise ConfigError(
            f"{call.where}: '{cell}_concat' must be all nodes, {', '.join(map(str, states))}, got {found}: a cell of"
            " this space returns all its nodes"
        )
    return nodes


def _edge(node: ast.expr, cell: str) -> InEdge:
    """An in-edge: its source and its operation, of a pair or, with its weight, a triple."""
    operation, source, *weight = items(node, cell, 3 if len(items(node, cell)) == 3 else 2)
    for number in map(token, weight):
        if not isinstance(number.value, int | float):
            raise number.refused("the weight of an edge, a number")
    return token(source), token(operation)


def _first(node: ast.expr, cell: str) -> ast.expr | None:
    return next(iter(items(node, cell)), None)
