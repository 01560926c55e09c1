"""A line plot as an SVG file, for documents."""

from __future__ import annotations

from html import escape

from nas.report.plot import SLOTS, UNIT, Plot

COLOURS = ("#332288", "#c2506a", "#2a8a7b", "#b07d00", "#aa4499", "#3b8fc4", "#117733", "#882255")
"""Those of the pages, for a white background."""
WIDTH, HEIGHT, LEFT, TOP, ROW = 640, 340, 56, 34, 18
"""Sizes in pixels: of the square of paths, its left and upper margin, and a row of the legend."""


def to_svg(plot: Plot, *, across: str, up: str) -> str:
    """Draw a plot with its legend.

    Args:
        plot: the plot.
        across: the name of the horizontal axis.
        up: the name of the vertical axis.
    """
    legend = [line for line in plot.lines if not line.faint]
    bottom = TOP + HEIGHT
    width, height = LEFT + WIDTH + 16, bottom + 46 + ROW * len(legend)
    frame = f'transform="translate({LEFT} {TOP}) scale({WIDTH / UNIT:g} {HEIGHT / UNIT:g})"'
    texts = [
        _text(LEFT, 18, plot.title, "start", "bold"),
        _text(LEFT + WIDTH / 2, bottom + 34, across, "middle"),
        f'<g transform="translate(14 {TOP + HEIGHT / 2:g}) rotate(-90)">{_text(0, 0, up, "middle")}</g>',
        *(_text(LEFT - 6, TOP + HEIGHT * (1 - tick.place) + 4, tick.text, "end") for tick in plot.up),
        *(_text(LEFT + WIDTH * tick.place, bottom + 16, tick.text, "middle") for tick in plot.across),
    ]
    grid = [f'<path d="M0 {UNIT * (1 - tick.place):.1f}H{UNIT}" stroke="#ddd"/>' for tick in plot.up]
    bands = [f'<path d="{b.path}" fill="{_colour(b.slot)}" opacity=".18"/>' for b in plot.bands]
    lines = [
        f'<path d="{line.path}" stroke="{_colour(line.slot)}" stroke-width="{3 if line.bold else 1.8}"'
        f' opacity="{0.3 if line.faint else 1}"{_dashes(line.slot)}/>'
        for line in plot.lines
    ]
    keys = []
    for row, line in enumerate(legend):
        y = bottom + 46 + ROW * row
        stroke = f'stroke="{_colour(line.slot)}" stroke-width="3"{_dashes(line.slot)}'
        keys += [f'<path d="M{LEFT} {y}h22" {stroke}/>', _text(LEFT + 30, y + 4, line.name, "start")]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
            f' role="img" aria-label="{escape(plot.title)}. {escape(plot.summary)}." font-family="sans-serif"'
            ' font-size="12">',
            '<rect width="100%" height="100%" fill="#fff"/>',
            f'<g {frame} fill="none" stroke-linejoin="round">',
            *(part.replace("/>", ' vector-effect="non-scaling-stroke"/>') for part in (*grid, *bands, *lines)),
            "</g>",
            *keys,
            *texts,
            "</svg>",
            "",
        ]
    )


def _colour(slot: int) -> str:
    return COLOURS[slot % SLOTS]


def _dashes(slot: int) -> str:
    return ' stroke-dasharray="6 4"' if slot >= SLOTS else ""


def _text(x: float, y: float, text: str, anchor: str, weight: str = "normal") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-weight="{weight}" fill="#222">{escape(text)}</text>'
