"""Cells with the labels of NNI and mmrazor.

`normal_n3_p1` is the edge from state 1 to node 3. The switch of a node lists the edges that the node keeps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from nas.errors import ConfigError
from nas.importing.formats import InEdge
from nas.importing.python_text import Token
from search_spaces.importers.darts import CELLS, INPUTS

KEY = re.compile(r"(normal|reduce)_n(\d+)(?:_p(\d+)|(_switch)?)")


def read_cells(edges: Mapping[str, Token], switches: Mapping[str, Sequence[Token]]) -> dict[str, list[list[InEdge]]]:
    """List the in-edges of each node of each cell.

    Args:
        edges: the operation of each edge, by label.
        switches: the labels of the edges that a node keeps, by the label of the node (`normal_n3`).

    Returns:
        By the name of a cell: for each node, its in-edges.

    Raises:
        ConfigError: a node is missing, or a kept edge has no operation, or is an edge of another node.
    """
    cells: dict[str, list[list[InEdge]]] = {}
    for cell in CELLS:
        count = sum(name.startswith(f"{cell}_n") for name in switches)
        cells[cell] = []
        for node in range(INPUTS, INPUTS + count):
            name = f"{cell}_n{node}"
            if name not in switches:
                raise ConfigError(f"'{name}' must be given, got no such node")
            kept = []
            for edge in switches[name]:
                label = edge.one_of([label for label in edges if label.startswith(f"{name}_p")])
                kept.append((Token(int(label.rpartition("_p")[2]), edge.where), edges[label]))
            if len(kept) != 2:
                raise ConfigError(f"{name}: must keep 2 in-edges, got {len(kept)}")
            cells[cell].append(kept)
    return cells
