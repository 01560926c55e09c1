"""The look of each kind of node: lines of text, size, colours."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import NamedTuple

from nas.draw.groups import Attributes
from nas.graph.network_graph import Graph

FONT = "Helvetica, Arial, 'DejaVu Sans', sans-serif"
INK, FAINT, LINE, FRAME = "#1a1a1a", "#5c5c5c", "#6b6b6b", "#8c8c8c"
PLAIN, WHITE = "#f2f2f2", "#ffffff"

MARK = "#b0006d"
"""Colour of the outlines and notes of differences between two genotypes."""

UNUSED = "unused"
"""Note on a node from which no path leads to the output."""

DECISION = ("#e2e4f3", "#332288")
SIZE = ("#f1dde7", "#882255")
"""(fill, stroke) of macro decisions, and of widths and depths: indigo and wine of P. Tol's colour-blind safe scheme."""

PALETTE = (
    ("#d9eefb", "#4a94d8"),
    ("#f7dda9", "#8a5200"),
    ("#bfe6d3", "#0a6b4f"),
    ("#f8cfb6", "#d4703f"),
    ("#f3dcec", "#a0478a"),
    ("#f8f4b4", "#8f7f00"),
    ("#bcd3ef", "#0a4fa8"),
    ("#e9e9e9", "#858585"),
)
"""(fill, stroke) of operation families: roughly the hues of Okabe and Ito, with lightnesses that colour-blind readers
can distinguish. Strokes have a contrast of 3:1 on white, texts 7:1 on fills."""

_WIDE = dict.fromkeys("mMWw@%", 0.98) | dict.fromkeys("ijlI.,:;'|!/\\ ", 0.36) | dict.fromkeys("frt()[]-", 0.42)


class Text(NamedTuple):
    """One line of text of `size` pixels, on a background of colour `chip` if set."""

    text: str
    size: float = 13.0
    bold: bool = False
    colour: str = INK
    chip: str = ""

    @property
    def width(self) -> float:
        """Width in pixels in DejaVu Sans, the widest of the usual sans-serif fonts."""
        return text_width(self.text, self.size, self.bold)

    @property
    def height(self) -> float:
        """Distance to the next line in pixels."""
        return (1.5 if self.chip else 1.3) * self.size


class Look(NamedTuple):
    """The look of a node or edge label: centred lines, and an outline `pad` pixels above and below them."""

    lines: tuple[Text, ...]
    fill: str = WHITE
    stroke: str = LINE
    radius: float = 5.0
    pad: float = 6.0
    stacked: bool = False
    tooltip: str = ""
    weight: float = 1.2
    """Width of the outline in pixels."""
    dashed: bool = False


def text_width(text: str, size: float, bold: bool = False) -> float:
    """Return an upper estimate of the width in pixels of a line of sans-serif text of `size` pixels."""
    return size * (1.1 if bold else 1.0) * sum(map(_em, text))


def _em(char: str) -> float:
    if unicodedata.combining(char):
        return 0.0
    if unicodedata.east_asian_width(char) in "WF":
        return 1.0
    if char in _WIDE:
        return _WIDE[char]
    return 0.75 if char.isupper() else 0.64 if char.isascii() and (char.isalnum() or char == "_") else 0.84


def wrap(text: str, width: float, size: float) -> list[str]:
    """Break a text at spaces into lines of at most `width` pixels."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def family(operation: str) -> str:
    """Return the name of an operation without sizes: `sep_conv` of `sep_conv_3x3`, `DilConv` of `DilConv_3_2`."""
    return re.split(r"_?\d", operation, maxsplit=1)[0] or operation


def families(graph: Graph) -> dict[str, tuple[str, str]]:
    """Return (fill, stroke) of every operation of the space, by family and independent of the genotype."""
    names = [name for name in graph.graph["operations"].split(", ") if name]
    order = list(dict.fromkeys(map(family, names)))
    return {name: PALETTE[order.index(family(name)) % len(PALETTE)] for name in names}


def times(attributes: Attributes) -> str:
    """Return ` ×4` for a node that stands for four, an empty text for a single one."""
    return f" ×{attributes['multiplicity']}" if attributes.get("multiplicity", 1) > 1 else ""


def chosen(attributes: Attributes) -> str:
    """Return the choice of the genotype with its unit; empty if nothing is chosen."""
    unit = {"width": "channel", "depth": "block"}.get(attributes.get("kind", ""))
    value = str(attributes["chosen"])
    return f"{value} {unit}{'' if value == '1' else 's'}" if unit and value else value


def title(attributes: Attributes) -> str:
    """Return the name of a node or group with its choice, or its candidates."""
    name = str(attributes["label"]) + times(attributes)
    if attributes["kind"] == "cell":
        cell = called(attributes["cell"])
        return cell + times(attributes) if attributes["label"] == attributes["cell"] else f"{name}: {cell}"
    if attributes["decision"]:
        return f"{name}: {chosen(attributes) or 'one of ' + attributes['candidates']}"
    return name.strip()


def called(cell: str) -> str:
    """Return `cell LABEL`, or `cell` for that label."""
    return cell if cell == "cell" else f"cell {cell}"


def note(attributes: Attributes) -> str:
    """Return the text of a mark (see `nas.draw.marks`), empty if there is none."""
    mark = str(attributes.get("mark", ""))
    return f"was {attributes['was']}" if mark == "changed" else mark


def look(attributes: Attributes, colours: Mapping[str, tuple[str, str]]) -> Look:
    """Return the look of a node."""
    drawn = _plain(attributes, colours)
    if attributes["unused"]:
        drawn = drawn._replace(lines=(*drawn.lines, Text(UNUSED, 10.5, colour=FAINT)))
    return _marked(drawn, attributes)


def _plain(attributes: Attributes, colours: Mapping[str, tuple[str, str]]) -> Look:
    kind, label, repeat = attributes["kind"], attributes["label"], times(attributes)
    if attributes["decision"]:
        return _decision(attributes, colours)
    if kind == "cell":
        lines = [Text(label + repeat, bold=True)]
        if label != attributes["cell"]:
            lines.append(Text(attributes["cell"], 11, colour=FAINT))
        tooltip = called(attributes["cell"]) + repeat
        return Look(tuple(lines), WHITE, INK, stacked=bool(repeat), tooltip=tooltip)
    fill = PLAIN if kind in ("input", "output") else WHITE
    radius = 5.0 if kind == "module" else 14.0
    return Look((Text(label + repeat),), fill, LINE, radius, stacked=bool(repeat))


def edge_look(attributes: Attributes, colours: Mapping[str, tuple[str, str]]) -> Look | None:
    """Return the look of the label of an edge, or None if it has none."""
    if not attributes["label"] and not note(attributes):
        return None
    fill, stroke = colours.get(attributes["label"], PALETTE[-1])
    lines = (Text(attributes["label"], 11.5),) if attributes["label"] else ()
    return _marked(Look(lines, fill, stroke, radius=9.0, pad=3.0, tooltip=tooltip(attributes)), attributes)


def _marked(look: Look, attributes: Attributes) -> Look:
    if not note(attributes):
        return look
    lines = (*look.lines, Text(note(attributes), 10.5, bold=True, colour=MARK))
    return look._replace(lines=lines, stroke=MARK, weight=2.4, dashed=attributes["mark"] == "removed")


def tooltip(attributes: Attributes) -> str:
    """Return the tooltip of a node or an edge: its decision."""
    if not attributes["decision"]:
        return ""
    taken = f"{attributes['chosen']}, " if attributes["chosen"] else ""
    return f"{attributes['decision']}: {taken}one of {attributes['candidates']}"


def _decision(attributes: Attributes, colours: Mapping[str, tuple[str, str]]) -> Look:
    kind, taken, repeat = attributes["kind"], chosen(attributes), times(attributes)
    name = attributes["decision"] + repeat
    if kind == "operation":
        fill, stroke = colours.get(taken, (WHITE, LINE))
        lines = (Text(taken),) if taken else (Text(name, 11, colour=FAINT), *_rows(attributes, colours))
    else:
        fill, stroke = DECISION if kind == "decision" else SIZE
        small, large = Text(name, 11, colour=FAINT), Text(taken or name, bold=True)
        lines = (small, large) if taken else (large, *_rows(attributes, colours))
    return Look(lines, fill, stroke, stacked=bool(repeat), tooltip=tooltip(attributes))


def _rows(attributes: Attributes, colours: Mapping[str, tuple[str, str]]) -> tuple[Text, ...]:
    """Return the candidates of a decision without a choice."""
    names = attributes["candidates"].split(", ")
    if attributes["kind"] in ("width", "depth"):
        unit = "channels" if attributes["kind"] == "width" else "blocks"
        return (Text(f"{', '.join(names)} {unit}", 11.5),)
    micro = attributes["kind"] == "operation"
    return tuple(Text(name, 11.5, chip=colours[name][0] if micro else WHITE) for name in names)
