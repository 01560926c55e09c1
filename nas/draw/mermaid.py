"""Mermaid flowcharts, for pages that render Markdown."""

from __future__ import annotations

import re

from nas.draw.groups import members_by_group
from nas.draw.style import INK, Look, edge_look, families, look, note, title
from nas.graph.network_graph import Graph

_SHAPES = {"input": ("([", "])"), "output": ("([", "])"), "state": ("((", "))"), "decision": ("{{", "}}")}


def to_mermaid(graph: Graph) -> str:
    """Return a graph as a Mermaid flowchart, with groups as subgraphs and the colours of the SVG picture."""
    inside, colours = members_by_group(graph), families(graph)
    ids = {name: f"n{i}" for i, name in enumerate(graph)}
    lines = ["flowchart LR"]
    styles: dict[str, list[str]] = {}

    def add(group: str, indent: str) -> None:
        for name in inside[group]:
            node = graph.nodes[name]
            if name in inside:
                lines.append(
                    f"{indent}subgraph {ids[name]}[{quote(' '.join([title(node), note(node)]).strip() or ' ')}]"
                )
                add(name, f"{indent}  ")
                lines.append(f"{indent}end")
                continue
            drawn = look(node, colours)
            left, right = _SHAPES.get(node["kind"], ("[", "]"))
            lines.append(f"{indent}{ids[name]}{left}{quote(_text(drawn))}{right}")
            styles.setdefault(_style(drawn), []).append(ids[name])

    add("", "  ")
    for source, target, attributes in graph.edges(data=True):
        label = edge_look(attributes, colours)
        arrow = "-.->" if label is not None and label.dashed else "-->"
        text = "" if label is None else f"|{quote(_text(label))}|"
        lines.append(f"  {ids[source]} {arrow}{text} {ids[target]}")
    for i, (style, names) in enumerate(styles.items()):
        lines += [f"  classDef c{i} {style}", f"  class {','.join(names)} c{i}"]
    return "\n".join([*lines, ""])


def quote(text: str) -> str:
    """Return a quoted Mermaid string that displays exactly `text`; special characters become entity codes."""
    special = re.sub(r"[^\w\s.,:;()\[\]{}+×←λ/<>=?!-]", lambda match: f"#{ord(match[0])};", text)
    return '"' + special.replace("<", "#lt;").replace(">", "#gt;").replace("\n", "<br>") + '"'


def _text(look: Look) -> str:
    return "\n".join(line.text for line in look.lines)


def _style(look: Look) -> str:
    dashes = ",stroke-dasharray:5 3" if look.dashed else ""
    return f"fill:{look.fill},stroke:{look.stroke},stroke-width:{look.weight:g}px,color:{INK}{dashes}"
