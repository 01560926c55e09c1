"""The groups of a graph: what is in each, and which edges belong to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nas.draw.layers import Edge
from nas.graph import Graph

IN, OUT = "\0in ", "\0out "
"""What is outside a group, seen from within: each begins the names of one end for each edge that passes its border."""

Attributes = Mapping[str, Any]


def members(graph: Graph) -> dict[str, list[str]]:
    """The nodes and groups directly in each group; the graph itself is the group without a name."""
    found: dict[str, list[str]] = {"": []}
    for name, attributes in graph.nodes(data=True):
        found.setdefault(attributes["group"], []).append(name)
    return found


def levels(graph: Graph) -> dict[str, dict[Edge, Attributes]]:
    """For each group its edges, between nodes and groups directly in it, and ends outside of it (`IN`, `OUT`).

    An edge that passes borders has a piece in each group that it runs through; only one without has attributes. The
    third item of a piece is the edge it belongs to.
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
    """The groups around a node, from the outermost to its own, and the node itself."""
    found = [node]
    while group := graph.nodes[found[0]]["group"]:
        found.insert(0, group)
    return found


def parts(names: Iterable[str], edges: Iterable[Edge]) -> list[list[str]]:
    """The names in parts that no edge connects, in the order of their first names."""
    part = {name: {name} for name in names}
    for a, b, *_ in edges:
        whole = part[a] | part[b]
        part.update(dict.fromkeys(whole, whole))
    firsts = {id(whole): whole for whole in part.values()}
    return [[name for name in part if name in whole] for whole in firsts.values()]
