"""Graphs in the DOT language, and pictures drawn by the program `dot` of Graphviz."""

from __future__ import annotations

from typing import Literal

from nas.draw.groups import members_by_group
from nas.draw.style import INK, LINE, MARK, Look, edge_look, families, look, note, title, wrap
from nas.errors import ConfigError
from nas.graph.network_graph import Graph


def to_dot(graph: Graph) -> str:
    """Return a graph in the DOT language, with groups as clusters and the colours of the SVG picture."""
    inside, colours = members_by_group(graph), families(graph)
    lines = [
        f"digraph {quote(graph.graph['space'])} {{",
        '  graph [rankdir=LR, fontname="Helvetica", fontsize=12, nodesep=0.25, ranksep=0.35];',
        '  node [shape=box, style="rounded,filled", fontname="Helvetica", fontsize=12, height=0.3];',
        f'  edge [color="{LINE}", fontname="Helvetica", fontsize=11, arrowsize=0.6];',
    ]

    def add(group: str, indent: str) -> None:
        for name in inside[group]:
            node = graph.nodes[name]
            if name not in inside:
                drawn = look(node, colours)
                text = "\n".join(line.text for line in drawn.lines)
                paint = f'fillcolor="{drawn.fill}", color="{drawn.stroke}", fontcolor="{INK}"' + _pen(drawn)
                lines.append(f"{indent}{quote(name)} [label={quote(text)}, {paint}, tooltip={quote(drawn.tooltip)}];")
                continue
            text = "\n".join([title(node), *wrap(node["caption"], 360, 11), *wrap(note(node), 360, 11)])
            lines.append(f"{indent}subgraph {quote(f'cluster {name}')} {{")
            lines.append(f'{indent}  label={quote(text)}; labeljust=l; style="rounded,dashed"; color="{LINE}";')
            add(name, f"{indent}  ")
            lines.append(f"{indent}}}")

    add("", "  ")
    for source, target, attributes in graph.edges(data=True):
        drawn = edge_look(attributes, colours)
        label = ""
        if drawn is not None:
            text = "\n".join(line.text for line in drawn.lines)
            label = f' [label={quote(text)}, color="{drawn.stroke}"{_pen(drawn)}]'
        lines.append(f"  {quote(source)} -> {quote(target)}{label};")
    return "\n".join([*lines, "}", ""])


def _pen(look: Look) -> str:
    """Return the DOT attributes for the outline of a marked item."""
    if look.stroke != MARK:
        return ""
    return f', penwidth={look.weight:g}, fontcolor="{MARK}"' + (", style=dashed" if look.dashed else "")


def quote(text: str) -> str:
    """Return a quoted DOT string that displays exactly `text`."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def run_dot(graph: Graph, format: Literal["png", "pdf"]) -> bytes:
    """Draw a graph with the program `dot`.

    Raises:
        ConfigError: `dot` is not installed, or fails.
    """
    import graphviz

    try:
        picture: bytes = graphviz.Source(to_dot(graph), engine="dot").pipe(format=format)
    except graphviz.ExecutableNotFound as error:
        raise ConfigError(
            f"{format.upper()} pictures need the program 'dot', which is not installed. Install it (Debian package"
            " 'graphviz'), or draw SVG, which needs no program."
        ) from error
    except graphviz.CalledProcessError as error:
        raise ConfigError(f"'dot' could not draw the {format.upper()} picture: {error}") from error
    return picture
