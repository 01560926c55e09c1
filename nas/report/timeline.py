"""Mixing weights and derived cells of a search, by epoch."""

from __future__ import annotations

from typing import NamedTuple

from nas.errors import NASError
from nas.genotype.file import Genotype
from nas.graph.network_graph import build_graph
from nas.report.decisions import choice_text
from nas.report.history import Series, thinned
from nas.report.pictures import MACRO, draw_pictures
from nas.report.plot import Plot, make_plot
from nas.report.recorded import Recorded
from nas.space.definition import Description

EPOCHS = 100
"""Epochs shown, at most: evenly spaced, including the first and the last."""
BYTES = 900_000
"""Bytes of all pictures, at most; in a long search some epochs have none."""
ABSENT = -1
"""Replaces a position if the genotype has no such decision."""


class Course(NamedTuple):
    """One decision over the epochs shown."""

    label: str
    candidates: list[str]
    weights: list[list[float]]
    """Mixing weights in [0, 1], by epoch and candidate."""
    chosen: list[int | None]
    """Position of the derived candidate, by epoch. `ABSENT` without such a decision, None without genotype."""
    top: float
    """Weight at the top of the plot."""
    plot: Plot


class Timeline(NamedTuple):
    """The epochs of a search."""

    steps: list[int]
    groups: dict[str, list[Course]]
    """Decisions by cell; an empty name holds those outside cells."""
    pictures: list[str]
    """Distinct SVG documents."""
    shown: list[dict[str, int]]
    """Positions in `pictures` of the derived cells, by epoch and label."""
    note: str
    """The reason why there are no pictures, or an empty text."""


def make_timeline(run: Recorded) -> Timeline | None:
    """Return the timeline of a search, or None if no mixing weights are recorded."""
    everywhere = sorted({step for mixing in run.mixing.values() for step in mixing.steps})
    if not everywhere:
        return None
    steps = [everywhere[i] for i in thinned(len(everywhere), EPOCHS)]
    groups: dict[str, list[Course]] = {}
    for label in run.mixing:
        groups.setdefault(label.rpartition("/")[0], []).append(_course(run, label, steps))
    genotypes = [run.genotypes.get(step) for step in steps]
    try:
        return Timeline(steps, groups, *_drawn(run.description, genotypes), "")
    except NASError as error:
        return Timeline(steps, groups, [], [{} for _ in steps], str(error))


def _course(run: Recorded, label: str, steps: list[int]) -> Course:
    candidates, known, weights = run.mixing[label]
    at = dict(zip(known, weights, strict=True))
    lines = {name: Series(known, [each[i] for each in weights]) for i, name in enumerate(candidates)}
    taken = [_position(label, candidates, run.genotypes.get(step)) for step in steps]
    last = taken[-1]
    bold = candidates[last] if last is not None and last != ABSENT else None
    top = min(1.0, 1.15 * max((weight for each in weights for weight in each if weight == weight), default=1.0))
    drawn = make_plot(label, lines, bold=bold, level=1 / len(candidates), limits=(0.0, top))
    missing = [0.0] * len(candidates)
    return Course(label, candidates, [at.get(step, missing) for step in steps], taken, top, drawn)


def _position(label: str, candidates: list[str], genotype: Genotype | None) -> int | None:
    if genotype is None:
        return None
    choice = choice_text(genotype.choices[label]) if label in genotype.choices else ""
    return candidates.index(choice) if choice in candidates else ABSENT


def _drawn(description: Description | None, genotypes: list[Genotype | None]) -> tuple[list[str], list[dict[str, int]]]:
    """Return the pictures, and their positions by epoch. Equal cells share a picture."""
    known: dict[str, int] = {}
    shown: list[dict[str, int]] = [{} for _ in genotypes]
    drawn: dict[str, dict[str, int]] = {}
    room = BYTES
    for i in sorted(range(len(genotypes)), key=lambda i: (i != len(genotypes) - 1, i)):  # the last one is drawn first
        genotype = genotypes[i]
        if genotype is None or description is None:
            continue
        key = repr(sorted(genotype.choices.items()))
        if key not in drawn:
            found = draw_pictures(build_graph(description, genotype))
            cells = {name: text for name, text in found.items() if name != MACRO} or found
            new = sum(len(text) for text in cells.values() if text not in known)
            drawn[key] = {}
            if new <= room:
                room -= new
                drawn[key] = {name: known.setdefault(text, len(known)) for name, text in cells.items()}
        shown[i] = drawn[key]
    return list(known), shown
