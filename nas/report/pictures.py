"""The pictures of a genotype for a page: its macro graph, and the inside of each cell apart, to be opened."""

from __future__ import annotations

from nas.draw import picture, svg
from nas.draw.groups import path
from nas.genotype import Genotype
from nas.graph import Graph
from nas.space import Description, find_space

MACRO = ""
"""The name of the macro graph among the pictures."""


def describe(genotype: Genotype) -> Description:
    """The search space of a genotype; raises `UnknownNameError` where its module is not loaded."""
    return find_space(genotype.space).describe(**genotype.options)


def pictures(whole: Graph) -> dict[str, str]:
    """SVG documents: the macro graph under `MACRO`, and every cell under its label."""
    outermost = {node: path(whole, node)[0] for node in whole}
    cells = {f"cell {attributes['label']}": str(attributes["label"]) for _, attributes in whole.nodes(data=True)}
    names = {node: cells.get(top, MACRO) for node, top in outermost.items()}
    drawn = {}
    for name in sorted(set(names.values()), key=list(names.values()).index):
        part = whole.copy()
        part.remove_nodes_from([node for node in whole if names[node] != name])
        drawn[name] = svg(picture(part))
    return drawn
