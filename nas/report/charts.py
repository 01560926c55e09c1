"""Charts of a run, as SVG or PNG by the name of the file; the same records give the same bytes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.files import write_atomic
from nas.genotype import Choice
from nas.report.history import Mixing, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Paul Tol's "muted" scheme, told apart with every kind of colour vision (personal.sron.nl/~pault).
COLOURS = ("#332288", "#CC6677", "#44AA99", "#DDAA33", "#AA4499", "#88CCEE", "#117733", "#882255", "#999933")
DASHES = ("-", "--", ":")
INK, FAINT, GRID, PALE = "#222222", "#777777", "#E4E4E4", "#C4C4C4"

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 8.0,
    "text.color": INK,
    "axes.edgecolor": PALE,
    "axes.labelcolor": FAINT,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": PALE,
    "ytick.color": PALE,
    "xtick.labelcolor": FAINT,
    "ytick.labelcolor": FAINT,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "lines.solid_capstyle": "round",
    "text.parse_math": False,
    "svg.fonttype": "path",  # looks the same where the font is missing
    "svg.hashsalt": "nas",
}


def mixing_chart(path: str | Path, mixing: Mapping[str, Mixing], choices: Mapping[str, Choice]) -> None:
    """Draw the mixing weights of every decision over the steps, each in its own panel, the derived choice thick.

    Decisions with equally many candidates share the scale of the weights. `choices` are those of the genotype; a
    decision that it lacks (inside a candidate that was not chosen) has no thick line.
    """
    tops: dict[int, float] = {}
    for series in mixing.values():
        count = len(series.candidates)
        tops[count] = max(tops.get(count, 0.0), min(1.0, 1.08 * np.nan_to_num(series.weights).max(initial=1 / count)))
    note = "thick: the derived choice   ·   dotted: uniform mixing"
    right = 0.35 + 0.066 * max(len(name) for series in mixing.values() for name in series.candidates)
    height = max(1.5, 0.16 * max(tops))
    with _styled(path, "Mixing weights", note, len(mixing), height=height, right=right) as panels:
        for axes, (label, series) in zip(panels, mixing.items(), strict=True):
            choice = str(choices[label]) if label in choices else None
            if choices and choice is None:
                axes.set_title(f"{label}  not in the genotype", color=FAINT)
            else:
                axes.set_title(label if choice is None else f"{label} → {choice}", weight="bold")
            _draw_mixing(axes, series, choice, tops[len(series.candidates)], height)


def loss_chart(path: str | Path, losses: Mapping[str, Series]) -> None:
    """Draw the loss of every level over the steps, each in its own panel: as it was (pale), and its running mean."""
    with _styled(
        path, "Loss of each level", "pale: every step   ·   line: running mean", len(losses), right=0.7
    ) as panels:
        for axes, (level, series) in zip(panels, losses.items(), strict=True):
            axes.set_title(level, weight="bold")
            _draw_loss(axes, series)


def bar_chart(path: str | Path, title: str, groups: Mapping[str, Mapping[str, float]], *, note: str = "") -> None:
    """Draw a bar with its value for each name in each group; the last name of a group (the result) stands out.

    `groups` are, for example, the clips, with the PSNR in dB of the rainy input, a baseline and the derained clip.
    """
    rows = sum(len(bars) + 1 for bars in groups.values())
    left = 0.3 + 0.066 * max(len(name) for bars in groups.values() for name in bars)
    values = [value for bars in groups.values() for value in bars.values()]
    largest = max(map(abs, values))
    digits = max(0, 3 - math.floor(math.log10(largest))) if largest > 0.0 else 0
    size = {"width": 4.6, "height": 0.2 * rows, "left": left, "right": 0.6, "above": 0.65}
    with _styled(path, title, note, 1, below="", **size) as (axes,):
        row, labels = 0, {}
        for group, bars in groups.items():
            axes.text(0.0, row, group, weight="bold", va="center")
            for i, (name, value) in enumerate(bars.items(), 1):
                result = i == len(bars)
                bar = axes.barh(row + i, value, height=0.72, color=COLOURS[0] if result else PALE)
                axes.bar_label(bar, fmt=f"%.{digits}f", padding=3, weight="bold" if result else "normal")
                labels[row + i] = name
            row += len(bars) + 1
        axes.set_ylim(row - 0.4, -0.6)
        axes.set_yticks(list(labels), list(labels.values()), size=7.5, color=INK)
        axes.set_xticks([])
        axes.set_xlim(left=1.3 * min(0.0, *values))  # room for the labels of negative values
        axes.tick_params(length=0)
        axes.grid(False)
        axes.spines[:].set_visible(False)


def _draw_mixing(axes: Axes, series: Mixing, choice: str | None, top: float, height: float) -> None:
    count = len(series.candidates)
    steps, weights = _thinned(series.steps, series.weights)
    axes.axhline(1 / count, color=FAINT, linewidth=0.8, linestyle=(0, (1, 2.5)))
    axes.set_ylim(0.0, top)
    axes.set_xlim(*_span(steps))
    ends = axes.get_yaxis_transform()  # x in widths of the panel, y in weights
    places = _spread([float(v) for v in np.nan_to_num(weights[-1])], gap=0.135 * top / height, top=top)
    for i, name in enumerate(series.candidates):
        colour, dash = COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)]
        chosen = name == choice
        axes.plot(steps, weights[:, i], dash, color=colour, linewidth=2.4 if chosen else 1.0, zorder=3 if chosen else 2)
        # A line leads from the curve's end to its name, which moves aside where others are.
        way = [weights[-1, i], places[i], places[i]]
        axes.plot([1.0, 1.03, 1.05], way, color=colour, linewidth=1.0, transform=ends, clip_on=False)
        weight = "bold" if chosen else "normal"
        axes.text(1.06, places[i], name, transform=ends, va="center", size=7.5, weight=weight)


def _draw_loss(axes: Axes, series: Series) -> None:
    steps, values = _thinned(series.steps, series.values)
    mean_steps, mean = _thinned(
        series.steps, _running_mean(np.asarray(series.values), max(1, len(series.values) // 40))
    )
    axes.plot(steps, values, color=PALE, linewidth=0.7)
    axes.plot(mean_steps, mean, color=COLOURS[0], linewidth=1.8)
    axes.set_xlim(*_span(steps))
    finite = values[np.isfinite(values)]
    if finite.size and finite.min() > 0.0 and finite.max() > 20.0 * finite.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    if np.isfinite(mean[-1]):
        axes.annotate(
            f"{mean[-1]:.3g}",
            (mean_steps[-1], mean[-1]),
            (5, 0),
            textcoords="offset points",
            va="center",
            weight="bold",
        )


@contextmanager
def _styled(
    path: str | Path,
    title: str,
    note: str,
    count: int,
    *,
    width: float = 2.9,
    height: float = 1.7,
    left: float = 0.5,
    right: float = 0.4,
    above: float = 0.85,
    below: str = "step",
) -> Iterator[Sequence[Axes]]:
    """A figure of `count` panels of a size in inches, with room to the left and right of each; saved at the end."""
    from matplotlib import style
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    columns = {1: 1, 2: 2, 4: 2}.get(count, 3)
    rows = math.ceil(count / columns)
    between, under = 0.55, 0.45
    total = columns * (left + width + right), above + rows * height + (rows - 1) * between + under
    with style.context(["default", STYLE]):  # whatever style the user has set for other things
        figure = Figure(figsize=total, facecolor="white")
        figure.text(0.15 / total[0], 1 - 0.26 / total[1], title, size=12, weight="bold", va="center")
        figure.text(0.15 / total[0], 1 - 0.47 / total[1], note, size=7.5, color=FAINT, va="center")
        panels: list[Axes] = []
        for i in range(count):
            row, column = divmod(i, columns)
            x = column * (left + width + right) + left
            y = total[1] - above - row * (height + between) - height
            panels.append(figure.add_axes((x / total[0], y / total[1], width / total[0], height / total[1])))
            panels[-1].xaxis.set_major_locator(MaxNLocator(6, integer=True))
            if i + columns >= count:
                panels[-1].set_xlabel(below, size=7.5)
        yield panels
        _save(figure, Path(path))


def _save(figure: Figure, path: Path) -> None:
    kind = path.suffix.removeprefix(".")
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    write_atomic(path, lambda file: figure.savefig(file, format=kind, dpi=150, metadata=metadata))


def _thinned(steps: Sequence[int], values: Any, most: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """At most about `most` of the points, the first and the last among them."""
    index = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), most)).round().astype(int))
    return np.asarray(steps)[index], np.asarray(values, dtype=float)[index]


def _span(steps: np.ndarray) -> tuple[float, float]:
    return float(steps[0]), float(max(steps[-1], steps[0] + 1))


def _running_mean(values: np.ndarray, reach: int) -> np.ndarray:
    """The mean of the finite values at most `reach` places away."""
    finite = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    place = np.arange(len(values))
    low, high = np.maximum(place - reach, 0), np.minimum(place + reach + 1, len(values))
    with np.errstate(invalid="ignore"):
        means: np.ndarray = (sums[high] - sums[low]) / (counts[high] - counts[low])
    return means


def _spread(values: Sequence[float], gap: float, top: float) -> list[float]:
    """Places in [0, top], at least `gap` apart and in the order of `values`, as near to them as can be.

    Least squares under an order is isotonic regression, by pooling neighbours; bounds clip its solution.
    """
    order = sorted(range(len(values)), key=lambda i: values[i])
    blocks: list[tuple[float, int]] = []  # mean and size of what has been pushed together
    for rank, i in enumerate(order):
        mean, size = values[i] - rank * gap, 1
        while blocks and blocks[-1][0] > mean:
            other, count = blocks.pop()
            mean, size = (mean * size + other * count) / (size + count), size + count
        blocks.append((mean, size))
    high = max(0.0, top - (len(values) - 1) * gap)
    places = [min(max(mean, 0.0), high) for mean, size in blocks for _ in range(size)]
    spread = {i: place + rank * gap for rank, (i, place) in enumerate(zip(order, places, strict=True))}
    return [spread[i] for i in range(len(values))]
