"""Pictures as SVG, without scripts or style sheets, so that every SVG viewer displays them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from xml.etree import ElementTree

from nas.draw.layout import Point, Rect
from nas.draw.picture import STACK, Box, Frame, Line, Picture
from nas.draw.style import FONT, LINE, Text
from nas.draw.theme import BACKGROUND, DARK, Theme

DASHES = "5 3"
ARROW = 7.0
"""Length of an arrow head in pixels."""


def to_svg(picture: Picture, theme: Theme = "light") -> str:
    """Return a picture as an SVG document of `picture.width` times `picture.height` pixels."""
    width, height = (f"{round(side + 0.5)}" for side in (picture.width, picture.height))
    root = ElementTree.Element(
        "svg",
        {"xmlns": "http://www.w3.org/2000/svg", "width": width, "height": height, "viewBox": f"0 0 {width} {height}"},
        role="img",
    )
    root.set("font-family", FONT)
    ElementTree.SubElement(root, "title").text = picture.title
    background = ElementTree.SubElement(root, "rect", width=width, height=height)
    for frame in picture.frames:
        _frame(root, frame)
    for line in picture.lines:
        _line(root, line)
    for box in picture.boxes:
        _box(root, box)
    if theme == "dark":
        for element in root.iter():
            painted = {key: element.attrib[key] for key in ("fill", "stroke") if key in element.attrib}
            element.attrib.update({key: DARK.get(colour, colour) for key, colour in painted.items()})
    background.set("fill", BACKGROUND[theme])
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _frame(root: ElementTree.Element, frame: Frame) -> None:
    group = _group(root, frame.tooltip)
    _rect(
        group,
        frame.rect,
        9.0,
        {"fill": LINE, "fill-opacity": "0.04", "stroke": frame.stroke, "stroke-dasharray": DASHES},
    )
    y = frame.rect.y + 6
    for line in frame.lines:
        _text(group, line, frame.rect.x + 12, y, "start")
        y += line.height


def _box(root: ElementTree.Element, box: Box) -> None:
    group = _group(root, box.look.tooltip)
    colours = {"fill": box.look.fill, "stroke": box.look.stroke, "stroke-width": f"{box.look.weight:g}"}
    if box.look.dashed:
        colours["stroke-dasharray"] = DASHES
    rect = box.rect
    if box.look.stacked:
        rect = Rect(rect.x, rect.y + 2 * STACK, rect.width - 2 * STACK, rect.height - 2 * STACK)
        for sheet in (2 * STACK, STACK):
            _rect(group, rect._replace(x=rect.x + sheet, y=rect.y - sheet), box.look.radius, colours)
    _rect(group, rect, box.look.radius, colours)
    y = rect.y + (rect.height - sum(line.height for line in box.look.lines)) / 2
    for line in box.look.lines:
        if line.chip:
            chip = Rect(rect.x + 5, y + 1, rect.width - 10, line.height - 2)
            _rect(group, chip, 3.0, {"fill": line.chip})
        _text(group, line, rect.x + rect.width / 2, y, "middle")
        y += line.height


def _line(root: ElementTree.Element, line: Line) -> None:
    points = line.points
    if line.arrow:
        x, y = points[-1]
        points = (*points[:-1], (x - ARROW + 1, y))
        head = f"{_n(x)},{_n(y)} {_n(x - ARROW)},{_n(y - 3.5)} {_n(x - ARROW)},{_n(y + 3.5)}"
        ElementTree.SubElement(root, "polygon", points=head, fill=line.colour)
    path = ElementTree.SubElement(root, "path", d=_curve(points), fill="none", stroke=line.colour)
    path.set("stroke-width", f"{line.weight:.2g}")
    if line.dashed:
        path.set("stroke-dasharray", DASHES)
    path.set("stroke-linejoin", "round")


def _curve(points: Sequence[Point]) -> str:
    d = f"M{_n(points[0][0])} {_n(points[0][1])}"
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        bend = "" if abs(y1 - y0) < 0.05 else f"{_n((x0 + x1) / 2)} {_n(y0)} {_n((x0 + x1) / 2)} {_n(y1)} "
        d += f"{'C' if bend else 'L'}{bend}{_n(x1)} {_n(y1)}"
    return d


def _group(root: ElementTree.Element, tooltip: str) -> ElementTree.Element:
    group = ElementTree.SubElement(root, "g")
    if tooltip:
        ElementTree.SubElement(group, "title").text = tooltip
    return group


def _rect(parent: ElementTree.Element, rect: Rect, radius: float, paint: dict[str, str]) -> None:
    x, y, width, height = map(_n, rect)
    ElementTree.SubElement(
        parent, "rect", {"x": x, "y": y, "width": width, "height": height, "rx": _n(radius), **paint}
    )


def _text(parent: ElementTree.Element, line: Text, x: float, top: float, anchor: str) -> None:
    places = {"x": _n(x), "y": _n(top + line.height / 2 + 0.35 * line.size), "text-anchor": anchor}
    element = ElementTree.SubElement(parent, "text", {**places, "font-size": _n(line.size), "fill": line.colour})
    if line.bold:
        element.set("font-weight", "bold")
    element.text = line.text


def _n(value: float) -> str:
    """Format a coordinate, rounded to 0.1 pixels."""
    return (
        f"{value:.1f}".removesuffix(".0").replace("-0", "0") if abs(value) < 0.05 else f"{value:.1f}".removesuffix(".0")
    )
