"""Groups of a graph: the nodes and edges inside each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nas.draw.column_order import Edge
from nas.graph.network_graph import Graph

IN, OUT = "\0in ", "\0out "
"""Prefixes of the names of virtual nodes on the border of a group, one for each edge that enters or leaves it."""

Attributes = Mapping[str, Any]


def members_by_group(graph: Graph) -> dict[str, list[str]]:
    """Return the nodes and groups directly inside each group. The empty name stands for the graph."""
    found: dict[str, list[str]] = {"": []}
    for name, attributes in graph.nodes(data=True):
        found.setdefault(attributes["group"], []).append(name)
    return found


def edges_by_group(graph: Graph) -> dict[str, dict[Edge, Attributes]]:
    """Return the edges of each group, between its direct members and the virtual nodes on its border (`IN`, `OUT`).

    An edge that crosses borders is split into one piece for each group that it passes. Only edges that cross no border
    keep attributes. The third item of a piece names the whole edge.
    """
    found: dict[str, dict[Edge, Attributes]] = {}
    for source, target, attributes in graph.edges(data=True):
        whole = f"{source}\0{target}"
        left, right = path(graph, source), path(graph, target)
        depth = next(i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b)
        for i in range(depth, len(left) - 1):
            found.setdefault(left[i], {})[left[i + 1], OUT + whole, whole] = {}
        for i in range(depth, len(right) - 1):
            found.setdefault(right[i], {})[IN + whole, right[i + 1], whole] = {}
        direct = attributes if len(left) == len(right) == depth + 1 else {}
        found.setdefault(left[depth - 1] if depth else "", {})[left[depth], right[depth], whole] = direct
    return found


def path(graph: Graph, node: str) -> list[str]:
    """Return the groups around a node from the outermost to the innermost, and then the node."""
    found = [node]
    while group := graph.nodes[found[0]]["group"]:
        found.insert(0, group)
    return found


def connected_parts(names: Iterable[str], edges: Iterable[Edge]) -> list[list[str]]:
    """Return the connected components of the names, in the order of their first names."""
    part = {name: {name} for name in names}
    for a, b, *_ in edges:
        whole = part[a] | part[b]
        part.update(dict.fromkeys(whole, whole))
    firsts = {id(whole): whole for whole in part.values()}
    return [[name for name in part if name in whole] for whole in firsts.values()]
