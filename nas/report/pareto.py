"""The Pareto front of a search: genotypes that are best at their cost, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from nas.draw.style import FAINT, FONT, INK, LINE, PALETTE
from nas.draw.theme import BACKGROUND
from nas.genotype.file import Genotype
from nas.run.searching import Best

WIDTH, HEIGHT, LEFT, BOTTOM, EDGE = 640, 400, 72, 56, 24
"""The picture and its margins in pixels."""
ROWS = 16
"""Rows of the table, at most."""


def spread(front: Sequence[Best], most: int = ROWS) -> list[Best]:
    """Return at most this many points of a front: the first, the last, and others at about equal steps of the cost."""
    if len(front) <= most:
        return list(front)
    low, high = front[0].cost, front[-1].cost
    goals = [low + (high - low) * i / (most - 1) for i in range(most)]
    return list({id(p): p for goal in goals for p in [min(front, key=lambda each: abs(each.cost - goal))]}.values())


def front_svg(front: Sequence[Best], unit: str, chosen: Genotype) -> str:
    """Return a picture of a front: the score of each genotype over its cost, and the one that the search derived.

    Args:
        front: by ascending cost and score; at least one.
        unit: of the cost: `parameters` or `FLOPs`.
        chosen: marked if it is one of the front.
    """
    costs, scores = [each.cost for each in front], [each.score for each in front]

    def x(cost: float) -> float:
        return LEFT + (WIDTH - LEFT - EDGE) * (cost - costs[0]) / ((costs[-1] - costs[0]) or 1.0)

    def y(score: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - EDGE) * (score - scores[0]) / ((scores[-1] - scores[0]) or 1.0)

    size = {"width": str(WIDTH), "height": str(HEIGHT)}
    root = ElementTree.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", **size, "role": "img"})
    root.set("viewBox", f"0 0 {WIDTH} {HEIGHT}")
    root.set("font-family", FONT)
    ElementTree.SubElement(root, "title").text = f"{len(front)} genotypes, each the best at its {unit}"
    ElementTree.SubElement(root, "rect", size, fill=BACKGROUND["light"])
    corner = f"M{LEFT},{EDGE / 2} V{HEIGHT - BOTTOM + 12} M{LEFT - 12},{HEIGHT - BOTTOM + 12} H{WIDTH - EDGE / 2}"
    ElementTree.SubElement(root, "path", d=corner, stroke=LINE, fill="none")
    for cost, anchor in ((costs[0], "start"), (costs[-1], "end")):
        _text(root, f"{cost:,.0f}", x(cost), HEIGHT - BOTTOM + 30, anchor)
    for score in (scores[0], scores[-1]):
        _text(root, f"{score:.3g}", LEFT - 10, y(score) + 4, "end")
    _text(root, unit, (LEFT + WIDTH) / 2, HEIGHT - 10, "middle", FAINT)
    _text(root, "sum of log mixing weights", LEFT + 12, EDGE - 8, "start", FAINT)
    fill, stroke = PALETTE[6]
    for each in front:
        mark = each.genotype.choices == chosen.choices
        spot = {"cx": f"{x(each.cost):.1f}", "cy": f"{y(each.score):.1f}", "r": "7" if mark else "4"}
        dot = ElementTree.SubElement(root, "circle", spot, fill=stroke if mark else fill, stroke=stroke)
        tooltip = f"{each.cost:,.0f} {unit}, score {each.score:.4g}" + (", derived by the search" if mark else "")
        ElementTree.SubElement(dot, "title").text = tooltip
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _text(root: ElementTree.Element, text: str, x: float, y: float, anchor: str, colour: str = INK) -> None:
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor, "font-size": "13"}
    ElementTree.SubElement(root, "text", place, fill=colour).text = text
