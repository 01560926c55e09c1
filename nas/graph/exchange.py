"""Write a graph for other programs: as GraphML, or as node-link JSON, which networkx and D3 read."""

from __future__ import annotations

import json

import networkx as nx

from nas.graph.network_graph import Graph


def graphml(graph: Graph) -> str:
    """Return a graph as GraphML.

    The attributes are those of `nas.graph.network_graph.build_graph`. Groups are not nested in the file; the attribute
    `group` of a node names its group.

    References:
        Brandes et al., GraphML Progress Report, Graph Drawing 2001.
    """
    return "\n".join([*nx.generate_graphml(graph), ""])


def node_link(graph: Graph) -> str:
    """Return a graph as JSON: `nodes` with an `id`, `links` with `source` and `target`, each with its attributes."""
    return json.dumps(nx.node_link_data(graph, edges="links"), indent=1, ensure_ascii=False) + "\n"
