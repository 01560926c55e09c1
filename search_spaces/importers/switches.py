"""Cells as NNI and mmrazor name their parts: `normal_n3_p1` is the edge from state 1 to node 3, and a switch of each
node lists the edges that it keeps."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from nas.errors import ConfigError
from nas.importing import InEdge
from nas.literals import Token
from search_spaces.importers.darts import CELLS, INPUTS

KEY = re.compile(r"(normal|reduce)_n(\d+)(?:_p(\d+)|(_switch)?)")


def read_cells(edges: Mapping[str, Token], switches: Mapping[str, Sequence[Token]]) -> dict[str, list[list[InEdge]]]:
    """The in-edges of each node of each cell.

    Args:
        edges: the operation of each edge, by name.
        switches: the names of the edges that each node keeps, by the name of the node (`normal_n3`).

    Raises `ConfigError` for a node that is missing, and for an edge that is kept but has no operation, or not its own.
    """
    cells: dict[str, list[list[InEdge]]] = {}
    for cell in CELLS:
        count = sum(name.startswith(f"{cell}_n") for name in switches)
        cells[cell] = []
        for node in range(INPUTS, INPUTS + count):
            name = f"{cell}_n{node}"
            if name not in switches:
                raise ConfigError(f"'{name}' is missing")
            kept = []
            for edge in switches[name]:
                label = edge.one_of([label for label in edges if label.startswith(f"{name}_p")])
                kept.append((Token(int(label.rpartition("_p")[2]), edge.where), edges[label]))
            if len(kept) != 2:
                raise ConfigError(f"{name}: keeps {len(kept)} in-edges, expected 2")
            cells[cell].append(kept)
    return cells
