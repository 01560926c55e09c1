"""Pictures of a genotype for a page: the macro graph, and one picture per cell."""

from __future__ import annotations

from nas.draw.groups import path
from nas.draw.picture import make_picture
from nas.draw.svg import to_svg
from nas.genotype.file import Genotype
from nas.graph.network_graph import Graph
from nas.space.definition import Description, find_space

MACRO = ""
"""Name of the macro graph among the pictures."""


def describe(genotype: Genotype) -> Description:
    """Return the search space of a genotype; raises `UnknownNameError` if its module is not loaded."""
    return find_space(genotype.space).describe(**genotype.options)


def draw_pictures(whole: Graph) -> dict[str, str]:
    """Return SVG documents: the macro graph under `MACRO`, each cell under its label."""
    outermost = {node: path(whole, node)[0] for node in whole}
    cells = {f"cell {attributes['label']}": str(attributes["label"]) for _, attributes in whole.nodes(data=True)}
    names = {node: cells.get(top, MACRO) for node, top in outermost.items()}
    drawn = {}
    for name in sorted(set(names.values()), key=list(names.values()).index):
        part = whole.copy()
        part.remove_nodes_from([node for node in whole if names[node] != name])
        drawn[name] = to_svg(make_picture(part))
    return drawn
