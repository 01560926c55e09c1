"""Graphs as a text tree, for terminals and logs."""

from __future__ import annotations

from nas.draw.groups import Attributes, connected_parts, edges_by_group, members_by_group, path
from nas.draw.style import UNUSED, called, note, title
from nas.graph.network_graph import Graph


def to_text(graph: Graph) -> str:
    """Return a graph as a text tree: one line per node, groups as branches.

    `c ← a, op(b)` lists the inputs of `c` and the operations on them. It is omitted if the only input is the node
    of the line before. `c ← nothing` marks a node without inputs.
    """
    inside = members_by_group(graph)
    lines: list[str] = []
    before = candidates = ""

    def add(names: list[str], indent: str) -> None:
        nonlocal before, candidates
        for i, name in enumerate(names):
            end = i == len(names) - 1
            node = graph.nodes[name]
            same = node["candidates"] == candidates and not node["chosen"] and "," in candidates
            said = title(node).replace(f"one of {candidates}", "one of the same") if same else title(node)
            candidates = node["candidates"]
            unused = f" ({UNUSED})" if node["unused"] else ""
            lines.append(f"{indent}{'└─' if end else '├─'} {said}{unused}{_noted(node)}")
            if name in inside:
                add(inside[name], indent + ("   " if end else "│  "))
                continue
            sources = [_source(graph, source, name) for source in graph.pred[name]]
            edge = graph.edges.get((before, name), {})
            if sources and ([*graph.pred[name]] != [before] or edge["label"] or note(edge)):
                lines[-1] += f" ← {', '.join(sources)}"
            elif not sources and node["kind"] != "input":
                lines[-1] += " ← nothing"
            before = name

    top = connected_parts(inside[""], edges_by_group(graph).get("", {}))
    for names in top:
        alone = len(names) == 1 and names[0] in inside  # the inside of a cell
        node = graph.nodes[names[0]]
        heading = called(title(node)) + (f" ({node['caption']})" if node["caption"] else "")
        lines += ["", heading] if alone else [graph.graph["space"]]
        add(inside[names[0]] if alone else names, "")
    return "\n".join([*lines, ""])


def _source(graph: Graph, source: str, target: str) -> str:
    """Return the label of a node with those of its groups, except groups that also contain the target."""
    around = path(graph, target)
    name = "/".join(graph.nodes[node]["label"] for node in path(graph, source) if node not in around)
    edge = graph.edges[source, target]
    return (f"{edge['label']}({name})" if edge["label"] else name) + _noted(edge)


def _noted(attributes: Attributes) -> str:
    return f" [{note(attributes)}]" if note(attributes) else ""
