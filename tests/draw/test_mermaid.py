"""Mermaid text: a grammar of the subset that is written, and all of the graph in it."""

from __future__ import annotations

import re

import pytest

from nas.draw.marks import marked
from nas.draw.mermaid import quote, to_mermaid
from nas.genotype.decision import Choice
from nas.genotype.file import Genotype
from nas.graph.network_graph import Graph, build_graph
from nas.space.definition import Description, find_space

STRING = r'"(?:[^"#]|#\w+;)*"'
NODE = re.compile(rf"(n\d+)(?:\[({STRING})\]|\(\[({STRING})\]\)|\(\(({STRING})\)\)|\{{\{{({STRING})\}}\}})")
EDGE = re.compile(rf"(n\d+) (-->|-\.->)(?:\|{STRING}\|)? (n\d+)")
GROUP = re.compile(rf"subgraph (n\d+)\[({STRING})\]")
CLASS = re.compile(r"class n\d+(?:,n\d+)* c\d+|classDef c\d+ (?:[\w-]+:[#\w .]+,?)+")


def read(text: str) -> tuple[dict[str, str], list[tuple[str, str]], int]:
    """Nodes and groups with their labels, edges, and the number of groups; every line must be one of the known."""
    first, *lines = text.splitlines()
    assert first == "flowchart LR"
    nodes: dict[str, str] = {}
    edges, groups, open_ = [], 0, 0
    for line in map(str.strip, lines):
        if match := GROUP.fullmatch(line):
            groups, open_ = groups + 1, open_ + 1
            nodes[match[1]] = match[2]
        elif line == "end":
            open_ -= 1
        elif match := NODE.fullmatch(line):
            nodes[match[1]] = next(filter(None, match.groups()[1:]))
        elif match := EDGE.fullmatch(line):
            edges.append((match[1], match[3]))
        else:
            assert CLASS.fullmatch(line), line
        assert open_ >= 0
    assert open_ == 0
    return nodes, edges, groups


def check(drawn: Graph) -> None:
    nodes, edges, groups = read(to_mermaid(drawn))
    ids = [f"n{i}" for i in range(len(drawn))]
    assert sorted(nodes) == sorted(ids)
    names = dict(zip(drawn, ids, strict=True))
    assert edges == [(names[a], names[b]) for a, b in drawn.edges]
    assert groups == sum(any(d["group"] == name for _, d in drawn.nodes(data=True)) for name in drawn)


def test_every_node_edge_and_group_is_there(many: list[tuple[Description, dict[str, Choice] | None]]) -> None:
    for description, choices in many[::10]:
        check(build_graph(description, choices))
        check(build_graph(description, choices, "open"))


def test_labels_and_marks() -> None:
    genotypes = [Genotype.load(name) for name in ("tmics-heavy", "tmics-light")]
    space = find_space("tmics")
    heavy, light = (build_graph(space.describe(**g.options), g) for g in genotypes)
    check(marked(heavy, light))
    text = to_mermaid(marked(heavy, light))
    assert 'n1{{"alignment<br>ofm<br>was tgm"}}' in text
    assert '-.->|"removed"|' in text
    assert "stroke-dasharray" not in text.split("classDef")[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a ×4, b(c)", '"a ×4, b(c)"'),
        ('say "x"', '"say #34;x#34;"'),
        ("<b>#1", '"#lt;b#gt;#35;1"'),
        ("a\nb", '"a<br>b"'),
        ("a|b`c`", '"a#124;b#96;c#96;"'),
    ],
)
def test_quoted_text(text: str, expected: str) -> None:
    assert quote(text) == expected
