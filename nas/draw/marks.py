"""Mark the differences of two graphs of one space."""

from __future__ import annotations

from nas.draw.groups import Attributes
from nas.graph.network_graph import Graph

SHOWN = ("label", "chosen", "cell", "multiplicity")
"""Attributes that are compared."""


def marked(before: Graph, after: Graph) -> Graph:
    """Return the union of two graphs, with a `mark` on each node and edge that differs.

    A mark is `added`, `removed` or `changed`. A changed node or edge also has an attribute `was`, its former text.
    """
    union = after.copy()
    for name, attributes in before.nodes(data=True):
        if name not in after:
            union.add_node(name, **attributes, mark="removed")
        elif _differs(attributes, after.nodes[name]):
            union.nodes[name].update(mark="changed", was=_said(attributes))
    for source, target, attributes in before.edges(data=True):
        if not after.has_edge(source, target):
            union.add_edge(source, target, **attributes, mark="removed")
        elif _differs(attributes, after.edges[source, target]):
            union.edges[source, target].update(mark="changed", was=_said(attributes))
    for name in after:
        if name not in before:
            union.nodes[name]["mark"] = "added"
    for source, target in after.edges:
        if not before.has_edge(source, target):
            union.edges[source, target]["mark"] = "added"
    return union


def _differs(a: Attributes, b: Attributes) -> bool:
    return any(a.get(name) != b.get(name) for name in SHOWN)


def _said(attributes: Attributes) -> str:
    times = attributes.get("multiplicity", 1)
    return str(attributes["chosen"] or attributes.get("cell") or attributes["label"]) + (
        f" ×{times}" if times > 1 else ""
    )
