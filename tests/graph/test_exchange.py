"""Graphs for other programs, read back as they were."""

from __future__ import annotations

import json

import networkx as nx
import pytest

from nas.genotype.file import Genotype
from nas.graph.exchange import graphml, node_link
from nas.graph.network_graph import Graph, build_graph
from nas.space.definition import find_space


@pytest.fixture(
    scope="module", params=[(name, cells) for name in ("darts-v2", "tmics-heavy") for cells in ("beside", "open")]
)
def drawn(request: pytest.FixtureRequest) -> Graph:
    name, cells = request.param
    genotype = Genotype.load(name)
    if "cells" in genotype.options:
        genotype.options["cells"] = 4
    return build_graph(find_space(genotype.space).describe(**genotype.options), genotype, cells)


def test_graphml_is_read_back(drawn: Graph) -> None:
    read = nx.parse_graphml(graphml(drawn))
    assert dict(read.nodes(data=True)) == dict(drawn.nodes(data=True))
    assert list(read.edges(data=True)) == list(drawn.edges(data=True))
    assert read.graph["space"] == drawn.graph["space"]


def test_node_link_is_read_back(drawn: Graph) -> None:
    data = json.loads(node_link(drawn))
    assert {node["id"] for node in data["nodes"]} == set(drawn)
    assert [(link["source"], link["target"]) for link in data["links"]] == list(drawn.edges)
    read = nx.node_link_graph(data, edges="links")
    assert nx.utils.graphs_equal(read, drawn)
