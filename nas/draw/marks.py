"""What distinguishes two graphs of one space, as marks on their union."""

from __future__ import annotations

from nas.draw.groups import Attributes
from nas.graph import Graph

SHOWN = ("label", "chosen", "cell", "multiplicity")
"""The attributes that make two nodes, or two edges, look different."""


def marked(before: Graph, after: Graph) -> Graph:
    """The graph `after` with what it lacks of `before`; what differs has a `mark`.

    The marks of nodes and edges are `added`, `removed` and `changed`; the last comes with what it `was`.
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
