"""Write the scores of methods on the same data: two CSV files, and one HTML page without external resources."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from nas.files import write_text
from nas.report.frame_viewer import data_uri, packed
from nas.report.history import Series
from nas.report.page import Report, render
from nas.report.plot import Plot, make_plot
from nas.report.tables import write_csv
from nas.run.scoring import Exhibit, Item, Picture, Scores, Scoring

PAGE = "evaluation.html"
BYTES = 6_000_000
"""Bytes of all pictures, at most. Encoding as text then makes them a third larger."""
LONGEST = 960
"""The greatest height and width of a picture on the page, in pixels."""
ROWS = 60
"""Rows of the table of the worst items, at most; the CSV file has all."""
PLOTS = 30
"""Parts of the data with plots, at most."""


class Shown(NamedTuple):
    """A picture, ready for the page; `uri` is empty if there is no room for it."""

    title: str
    uri: str
    height: int
    width: int


class Grid(NamedTuple):
    """An exhibit, ready for the page."""

    title: str
    rows: list[list[Shown]]


def write_scoring(scoring: Scoring, folder: str | Path) -> Report:
    """Write `evaluation.html`, `PARTs.csv` and `ITEMs.csv`, with the words of the scoring for part and item.

    Args:
        scoring: the scores.
        folder: where to write.

    Returns:
        The page, which notebooks display.

    Raises:
        InvalidFileError: a file cannot be written.
    """
    folder, columns = Path(folder), metrics_of(scoring)
    rows: list[list[str | int]] = [
        [part, method, *(_number(scores.get(name)) for name in columns)]
        for part, methods in scoring.parts.items()
        for method, scores in methods.items()
    ]
    write_csv(folder / f"{scoring.part}s.csv", [scoring.part, "method", *columns], rows)
    measured = [name for name in columns if any(name in item.scores for item in scoring.items)]
    order = {part: place for place, part in enumerate(scoring.parts)}
    items = sorted(scoring.items, key=lambda item: (order[item.part], item.item))
    rows = [
        [item.part, item.item, item.method, *(_number(item.scores.get(name)) for name in measured)] for item in items
    ]
    write_csv(folder / f"{scoring.item}s.csv", [scoring.part, scoring.item, "method", *measured], rows)
    path = folder / PAGE
    write_text(path, page_text(scoring))
    return Report(path)


def page_text(scoring: Scoring) -> str:
    """Return the page as HTML."""
    columns = metrics_of(scoring)
    exhibits = [*scoring.worst, *(each for found in scoring.exhibits.values() for each in found)]
    count = sum(len(row) for exhibit in exhibits for row in exhibit.rows)
    room = BYTES // max(count, 1)
    return render(
        "scoring.html",
        scoring=scoring,
        methods=list(scoring.totals),
        columns=columns,
        totals=[[method, *(_cell(scores.get(name)) for name in columns)] for method, scores in scoring.totals.items()],
        part_rows=[
            [f"{part}: {method}", *(_cell(scores.get(name)) for name in columns)]
            for part, methods in scoring.parts.items()
            for method, scores in methods.items()
        ],
        judged=scoring.judged,
        rank=rank_of(scoring),
        meanings=[(name, scoring.metrics[name]) for name in columns],
        worst_rows=_worst_rows(scoring),
        worst=[_grid(each, room) for each in scoring.worst],
        exhibits={heading: [_grid(each, room) for each in found] for heading, found in scoring.exhibits.items()},
        plots=_plots(scoring),
    )


def metrics_of(scoring: Scoring) -> list[str]:
    """Return the metrics that a method has over all parts, in the order of columns."""
    return [name for name in scoring.metrics if any(name in scores for scores in scoring.totals.values())]


def rank_of(scoring: Scoring) -> str:
    """Return the metric by which the worst items are first."""
    return next(iter(scoring.metrics))


def _worst_rows(scoring: Scoring) -> list[list[str | None]]:
    """Return a row for each of the worst items, with the ranking metric of every method."""
    rows: dict[tuple[str, int], dict[str, Scores]] = {}
    for item in scoring.items:
        if (item.part, item.item) not in rows and len(rows) == ROWS:
            continue
        rows.setdefault((item.part, item.item), {})[item.method] = item.scores
    rank = rank_of(scoring)
    return [
        [f"{part}, {scoring.item} {item}", *(_cell(by.get(method, {}).get(rank)) for method in scoring.totals)]
        for (part, item), by in rows.items()
    ]


def _plots(scoring: Scoring) -> list[Plot]:
    """Plot the ranking metric over the items of each part, with a line for each method."""
    rank, plots = rank_of(scoring), []
    by_part: dict[str, list[Item]] = {}
    for item in scoring.items:
        by_part.setdefault(item.part, []).append(item)
    for part in [*scoring.parts][:PLOTS]:
        lines = {}
        for method in scoring.totals:
            found = sorted((i.item, i.scores[rank]) for i in by_part.get(part, []) if i.method == method)
            if any(math.isfinite(value) for _, value in found):
                lines[method] = Series([at for at, _ in found], [value for _, value in found])
        if lines:
            plots.append(make_plot(f"{part}: {rank}", lines, order=list(scoring.totals)))
    return plots


def _grid(exhibit: Exhibit, room: int) -> Grid:
    return Grid(exhibit.title, [[_shown(picture, room) for picture in row] for row in exhibit.rows])


def _shown(picture: Picture, room: int) -> Shown:
    pixels = _fitted(picture.pixels)
    data = packed(pixels[None], room)
    return Shown(picture.title, data_uri(data) if data else "", pixels.shape[1], pixels.shape[2])


def _fitted(pixels: Tensor) -> Tensor:
    """Scale a picture down to the page's limit."""
    scale = LONGEST / max(pixels.shape[1:])
    if scale >= 1:
        return pixels
    size = [max(1, round(side * scale)) for side in pixels.shape[1:]]
    return F.interpolate(pixels[None], size, mode="bilinear", antialias=True)[0]


def _cell(value: float | None) -> str | None:
    if value is None or math.isnan(value):
        return None
    return f"{value:.4g}"


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.9g}"
