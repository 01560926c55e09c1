"""A graph for other programs: GraphML, and the node-link form of JSON that networkx and D3 read."""

from __future__ import annotations

import json

import networkx as nx

from nas.graph import Graph


def graphml(graph: Graph) -> str:
    """The graph as GraphML (Brandes et al., 2001); the attributes are those of `nas.graph.graph`.

    `group` names the group a node lies in: readers of nested graphs see them flat.
    """
    return "\n".join([*nx.generate_graphml(graph), ""])


def node_link(graph: Graph) -> str:
    """The graph as JSON: `nodes` with an `id`, and `links` with `source` and `target`, beside their attributes."""
    return json.dumps(nx.node_link_data(graph, edges="links"), indent=1, ensure_ascii=False) + "\n"
