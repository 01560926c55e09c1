"""Line plots as data: paths and ticks in a square that a page may stretch to any size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from nas.report.history import Series, thinned

UNIT = 1000
"""Side of the square in units of paths; y points downwards."""
POINTS = 400
"""Points of a line, at most."""
SLOTS = 8
"""Distinguishable colours; further lines are dashed."""


class Tick(NamedTuple):
    """A mark on an axis: its place in [0, 1], from the left or the bottom, and its text."""

    place: float
    text: str


class Line(NamedTuple):
    """A line: its path, and the points on it, which are shown at the pointer."""

    name: str
    path: str
    steps: list[int]
    values: list[float | None]
    slot: int
    faint: bool
    bold: bool


class Band(NamedTuple):
    """The area between two lines."""

    path: str
    slot: int


class Plot(NamedTuple):
    """A plot, ready to draw."""

    title: str
    lines: tuple[Line, ...]
    bands: tuple[Band, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    first: int
    last: int
    """Steps at the left end (`first`) and the right end (`last`)."""
    level: float | None
    """Place of the reference line in [0, 1], from the bottom."""
    summary: str
    """The plot in words."""


class Spread(NamedTuple):
    """Lower and upper bounds over the steps; a band around the line of the same name."""

    steps: list[int]
    low: list[float]
    high: list[float]


def make_plot(
    title: str,
    lines: Mapping[str, Series],
    *,
    faint: Mapping[str, Series] | None = None,
    bands: Mapping[str, Spread] | None = None,
    bold: str | None = None,
    level: float | None = None,
    limits: tuple[float, float] | None = None,
    order: Sequence[str] = (),
) -> Plot:
    """Make a plot of lines over the steps. Not-a-number leaves a gap.

    The axis of values is logarithmic if the values are positive, span more than a factor of 20, and have no limits.

    Args:
        title: the title.
        lines: the lines by name, at least one.
        faint: lines behind them, in the colours of the lines of the same names.
        bands: areas behind them, by the name of the line.
        bold: the name of a line to emphasize.
        level: the value of a horizontal reference line.
        limits: the least and the largest value shown; taken from the data if None.
        order: names whose positions determine the colours, for equal colours across plots.
    """
    faint, bands = faint or {}, bands or {}
    everything = [*lines.values(), *faint.values()]
    steps = [step for series in everything for step in series.steps]
    first, last = min(steps), max(steps)
    values = [v for series in everything for v in series.values if math.isfinite(v)]
    values += [v for band in bands.values() for v in (*band.low, *band.high) if math.isfinite(v)]
    scale = _Scale.of(values + ([] if level is None else [level]), limits)
    slots = {name: slot for slot, name in enumerate(order or lines)}

    def point(step: int, value: float) -> tuple[float, float]:
        return (step - first) / max(last - first, 1), scale.place(value)

    def line(name: str, series: Series, behind: bool) -> Line:
        kept = thinned(len(series.steps), POINTS)
        at, values = [series.steps[i] for i in kept], [series.values[i] for i in kept]
        path = _path(point(*pair) for pair in zip(at, values, strict=True))
        finite = [value if math.isfinite(value) else None for value in values]
        return Line(name, path, at, finite, slots.get(name, 0), behind, name == bold)

    drawn = [line(name, series, True) for name, series in faint.items()]
    drawn += [line(name, series, False) for name, series in lines.items()]
    return Plot(
        title,
        tuple(drawn),
        tuple(Band(_area(band, point), slots[name]) for name, band in bands.items()),
        tuple(Tick((t - first) / max(last - first, 1), f"{t:g}") for t in _ticks(first, last, 5) if t == int(t)),
        tuple(Tick(scale.place(value), _short(value)) for value in scale.ticks),
        first,
        last,
        None if level is None else scale.place(level),
        "; ".join(_words(name, series) for name, series in lines.items()),
    )


class _Scale(NamedTuple):
    low: float
    high: float
    log: bool
    ticks: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float], limits: tuple[float, float] | None) -> _Scale:
        low, high = limits or (min(values, default=0.0), max(values, default=1.0))
        if not limits and low > 0 and high > 20 * low:
            powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            ticks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
            inside = tuple(tick for tick in ticks if low <= tick <= high)
            return cls(low, high, True, inside[:: -(-len(inside) // 5)])
        if low == high:
            low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
        pad = 0.0 if limits else 0.04 * (high - low)
        low, high = low - pad, high + pad
        return cls(low, high, False, tuple(_ticks(low, high, 4)))

    def place(self, value: float) -> float:
        """Return the place of a value, from 0 (bottom) to 1."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low) if value > 0 else 0.0
        return (value - self.low) / (self.high - self.low)


def _ticks(low: float, high: float, count: int) -> list[float]:
    """Return about `count` round numbers between two."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * min((digit for digit in (1, 2, 5, 10) if digit * power >= raw * 0.999), default=10)
    numbers = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    return [float(f"{number * step:.12g}") for number in numbers]


def _path(points: Iterable[tuple[float, float]]) -> str:
    parts, down = [], False
    for x, y in points:
        if math.isfinite(y):
            parts.append(f"{'L' if down else 'M'}{UNIT * x:.1f} {UNIT * (1 - y):.1f}")
        down = math.isfinite(y)
    return "".join(parts)


def _area(band: Spread, point: Callable[[int, float], tuple[float, float]]) -> str:
    kept = thinned(len(band.steps), POINTS)
    there = [point(band.steps[i], band.high[i]) for i in kept]
    back = [point(band.steps[i], band.low[i]) for i in reversed(kept)]
    return _path([*there, *back]) + "Z"


def _words(name: str, series: Series) -> str:
    finite = [value for value in series.values if math.isfinite(value)]
    if not finite:
        return f"{name}: never finite"
    return f"{name}: from {finite[0]:.3g} to {finite[-1]:.3g}, between {min(finite):.3g} and {max(finite):.3g}"


def _short(value: float) -> str:
    """Format a round number in few characters: 0.05, 2e-5, 150k, 2M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= 10 * size or (unit != "k" and abs(value) >= size):
            return f"{value / size:g}{unit}"
    return f"{value:g}".replace("e-0", "e-")
