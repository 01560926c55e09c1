"""The named tuples that DARTS (Liu et al., ICLR 2019) and derived projects print: `Genotype(normal=[...], ...)`."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from nas import Genotype
from nas.errors import ConfigError
from nas.genotype.decision import Choice
from nas.importing.formats import InEdge, cell_choices
from nas.importing.python_text import Call, find_call, items, token
from nas.space.primitives import DARTS

FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")
REFUSED = {"recurrent": "cells of recurrent networks are not supported, expected those of convolutional ones"}
CELLS = ("normal", "reduce")
INPUTS = 2

EVALUATION: Mapping[str, Any] = {"channels": 36, "cells": 20, "affine": True, "operations": "darts-evaluation"}
"""The options of the published networks (sec. 4.1 of the paper)."""

OPERATIONS = {name: name for name in DARTS}


def read(text: str, *, name: str | None = None, **options: Any) -> Genotype:
    """Read a genotype from Python source with `NAME = Genotype(normal=..., normal_concat=..., reduce=..., ...)`.

    Each cell is a list of (operation, source) pairs, two for each node, or a list of one such list per node. A third
    item of a pair, its weight, has no effect. A line of a log, a dictionary and JSON are supported, too.

    Args:
        text: the source.
        name: of the assigned variable, if there are several.
        options: of the space, in place of those of the published networks.

    Returns:
        A genotype of the space `darts`.

    Raises:
        ConfigError: the text has another form; the message names the line and the token.
    """
    call = find_call(text, "Genotype", FIELDS, name, REFUSED)
    return genotype({cell: _nodes(call, cell) for cell in CELLS}, OPERATIONS, options)


def write(genotype: Genotype) -> str:
    """Write a genotype of the space `darts` as the text that `read` takes.

    Raises:
        ConfigError: the genotype is of another space.
    """
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
    """Make a genotype of the space `darts` from the in-edges of its cells.

    Args:
        cells: by the name of the cell, two in-edges for each node.
        operations: maps names of operations in the text to those of the space.
        options: of the space, in place of those of the published networks.

    Returns:
        The genotype.

    Raises:
        ConfigError: the cells have no nodes or different numbers of them, or an in-edge is not valid.
    """
    counts = [len(cells[cell]) for cell in CELLS]
    if counts[0] != counts[1] or not counts[0]:
        raise ConfigError(
            f"normal and reduction cell must have equally many nodes, at least 1, got {counts[0]} and {counts[1]}"
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
            f"{call.where}: '{cell}_concat' must be all nodes, {', '.join(map(str, states))}, got {found}. Cells of"
            " this space return all their nodes"
        )
    return nodes


def _edge(node: ast.expr, cell: str) -> InEdge:
    """Read an in-edge from (operation, source) or (operation, source, weight)."""
    operation, source, *weight = items(node, cell, 3 if len(items(node, cell)) == 3 else 2)
    for number in map(token, weight):
        if not isinstance(number.value, int | float):
            raise number.refused("the weight of an edge, a number")
    return token(source), token(operation)


def _first(node: ast.expr, cell: str) -> ast.expr | None:
    return next(iter(items(node, cell)), None)
