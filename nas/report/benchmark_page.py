"""The page, picture and table of a comparison of searchers on a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from nas.benchmark.intervals import Interval
from nas.benchmark.simulation import Comparison
from nas.benchmark.table import Published
from nas.files import write_text
from nas.report.history import Series
from nas.report.page import Report, render
from nas.report.plot import Plot, Spread, make_plot
from nas.report.plot_svg import to_svg
from nas.report.tables import Cell, write_csv

PAGE, PICTURE, CURVES = "benchmark.html", "regret.svg", "curves.csv"
COLUMNS = ("searcher", "evaluations", "result", "deviation", "regret", "from", "to", "optimum found")
"""Of the table of results; from and to bound the regret."""
PUBLISHED = ("searcher", "published", "deviation", "here", "deviation here", "evaluations here", "source")
STOPS = (10, 50)
"""Numbers of evaluations in the table, beside the last one and those of published results."""


def write_benchmark(
    found: Comparison, folder: str | Path, *, published: Sequence[Published] = (), source: str = ""
) -> Report:
    """Write `benchmark.html`, the picture `regret.svg`, and `curves.csv` with every number of evaluations.

    Args:
        found: the searchers.
        folder: where to write.
        published: results to show beside.
        source: whose table it is.

    Returns:
        The page, which notebooks display.

    Raises:
        InvalidFileError: a file cannot be written.
    """
    folder = Path(folder)
    regrets = {name: curve.regret for name, curve in found.curves.items()}
    results = {name: curve.result for name, curve in found.curves.items()}
    shown = [_plot(f"regret in {found.target.judged}", regrets), _plot(found.target.judged, results)]
    page = render(
        "benchmark.html",
        found=found,
        source=source,
        plots=shown,
        columns=COLUMNS,
        rows=result_rows(found, published),
        published=published_rows(found, published),
        published_columns=PUBLISHED,
    )
    columns = ["searcher", "evaluations", "result", "deviation", "regret", "regret_low", "regret_high", "optimum_found"]
    write_csv(folder / CURVES, columns, _all_rows(found))
    title = f"{found.table}: mean regret in {found.target.judged} over {found.seeds} seeds, with 95% intervals"
    write_text(folder / PICTURE, to_svg(shown[0]._replace(title=title), across="evaluations", up="regret"))
    write_text(folder / PAGE, page)
    return Report(folder / PAGE)


def result_rows(found: Comparison, published: Sequence[Published] = ()) -> list[list[Cell]]:
    """Return the rows of the table of results, for a few numbers of evaluations."""
    stops = {*STOPS, *(each.evaluations for each in published), found.evaluations}
    return [_row(found, name, stop) for name in found.curves for stop in sorted(stops) if stop <= found.evaluations]


def published_rows(found: Comparison, published: Sequence[Published]) -> list[list[Cell]]:
    """Return the rows of the table of published results, with those of the searchers of these names."""
    rows: list[list[Cell]] = []
    for each in published:
        here: list[Cell] = [None, None]
        if each.method in found.curves and each.evaluations <= found.evaluations:
            result = found.curves[each.method].result
            here = [_fixed(float(interval[each.evaluations - 1])) for interval in (result.mean, result.deviation)]
        rows.append([each.method, _fixed(each.mean), _fixed(each.deviation), *here, each.evaluations, each.source])
    return rows


def _row(found: Comparison, name: str, evaluations: int) -> list[Cell]:
    result, regret, optimal = found.curves[name]
    at = evaluations - 1
    numbers = (result.mean, result.deviation, regret.mean, regret.low, regret.high)
    return [name, evaluations, *(_fixed(float(each[at])) for each in numbers), f"{optimal[at]:.1%}"]


def _fixed(value: float) -> str | None:
    return f"{value:.3f}" if value == value else None


def _all_rows(found: Comparison) -> list[list[str | int]]:
    return [
        [name, at + 1, *(f"{float(each[at]):.6g}" for each in (*result[:2], regret.mean, *regret[2:], optimal))]
        for name, (result, regret, optimal) in found.curves.items()
        for at in range(found.evaluations)
    ]


def _plot(title: str, intervals: Mapping[str, Interval]) -> Plot:
    lines, bands = {}, {}
    for name, (mean, _, low, high) in intervals.items():
        steps = list(range(1, len(mean) + 1))
        lines[name] = Series(steps, mean.tolist())
        if math.isfinite(low[-1]):
            bands[name] = Spread(steps, low.tolist(), high.tolist())
    return make_plot(title, lines, bands=bands)
