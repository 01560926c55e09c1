"""Compare several runs: scores, curves with bands over seeds, and differences of their genotypes."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from nas.cost.network_cost import size
from nas.draw.rendering import difference
from nas.errors import ConfigError, NASError
from nas.files import parse_yaml, write_text
from nas.genotype.file import Genotype
from nas.report.decisions import choice_text
from nas.report.history import Series, running_mean
from nas.report.page import Report, render
from nas.report.pictures import draw_pictures
from nas.report.plot import Plot, Spread, make_plot
from nas.report.recorded import Recorded, read_run
from nas.run.collapse import COLLAPSE
from nas.run.folder import flat

BYTES = 1_500_000
"""Bytes of all pictures, at most; later runs have none."""


class Group(NamedTuple):
    """Runs that differ in the seed alone, and the settings in which they differ from other groups."""

    name: str
    runs: list[Recorded]
    settings: dict[str, str]


class Choices(NamedTuple):
    """The choice of each run for one decision, empty if it has none, and the most frequent choice."""

    label: str
    chosen: list[str]
    usual: str

    @property
    def differs(self) -> bool:
        """Whether the choices of the runs differ."""
        return len(set(self.chosen)) > 1


def write_comparison(folders: Sequence[str | Path], out: str | Path) -> Report:
    """Write the comparison of two or more runs as one HTML file.

    Args:
        folders: the folders of the runs.
        out: the file.

    Returns:
        The page, which notebooks display.

    Raises:
        ConfigError: a folder is given twice.
        InvalidFileError: a folder is no run, or `out` cannot be written.
    """
    places = [Path(folder).resolve() for folder in folders]
    if len(set(places)) < len(places):
        repeated = next(folder for i, folder in enumerate(folders) if places[i] in places[:i])
        raise ConfigError(f"runs to compare must be different folders, got '{repeated}' twice")
    runs = [read_run(folder) for folder in folders]
    found = groups(runs)
    names = list(dict.fromkeys(name for run in runs for name in run.scores))
    headings = {name: heading for run in runs for name, heading in run.headings.items()}
    page = render(
        "compare.html",
        runs=runs,
        groups=found,
        columns=["run", "group", "seed", "steps", *headings.values(), "parameters", "least margin"],
        rows=[_row(group, run, names) for group in found for run in group.runs],
        scores=list(headings.values()),
        settings=[[key, *(group.settings[key] for group in found)] for key in found[0].settings],
        means=[[group.name, len(group.runs), *(_mean(group, name) for name in names)] for group in found],
        plots=curves(found),
        choices=choices(runs),
        drawn=_drawn(runs),
    )
    write_text(out, page)
    return Report(Path(out))


def groups(runs: Sequence[Recorded]) -> list[Group]:
    """Group runs by their configuration without the seed. Groups are named A, B, ..."""
    settings: dict[bytes, dict[str, Any]] = {}
    members: dict[bytes, list[Recorded]] = {}
    for run in runs:
        leaves = flat(parse_yaml(run.config_text, str(run.folder)))
        leaves.pop("seed", None)
        key = msgspec.json.encode(leaves, order="sorted")
        settings.setdefault(key, leaves)
        members.setdefault(key, []).append(run)
    keys = dict.fromkeys(name for leaves in settings.values() for name in leaves)
    told = [name for name in keys if len({repr(leaves.get(name)) for leaves in settings.values()}) > 1]
    return [
        Group(_letters(i), members[key], {name: str(settings[key].get(name, "–")) for name in told})
        for i, key in enumerate(members)
    ]


def curves(found: Sequence[Group]) -> list[Plot]:
    """Plot the losses and indicators, with one line per group.

    A line is the mean over runs. If a group has several, a band shows one standard deviation to both sides.
    """
    plots = []
    for title, series in _recorded(found).items():
        lines, bands = {}, {}
        for name, members in series.items():
            common = sorted(set.intersection(*(set(each.steps) for each in members)))
            if not common:
                continue
            at = [dict(zip(each.steps, each.values, strict=True)) for each in members]
            values = [[each[step] for each in at] for step in common]
            means = [statistics.fmean(row) for row in values]
            lines[name] = Series(common, means)
            if len(members) > 1:
                reach = [statistics.stdev(row) for row in values]
                low, high = ([m + s * r for m, r in zip(means, reach, strict=True)] for s in (-1, 1))
                bands[name] = Spread(common, low, high)
        if lines:
            plots.append(make_plot(title, lines, bands=bands, order=[group.name for group in found]))
    return plots


def choices(runs: Sequence[Recorded]) -> list[Choices]:
    """Return the choices of the runs by decision; the in-edges of a node follow it."""
    genotypes = [run.genotype for run in runs]
    labels = dict.fromkeys(label for genotype in genotypes if genotype for label in genotype.contested())
    nodes = [*dict.fromkeys(label.partition("<-")[0] for label in labels)]
    rows = []
    for label in sorted(labels, key=lambda label: (nodes.index(label.partition("<-")[0]), label)):
        chosen = [
            choice_text(genotype.choices[label]) if genotype and label in genotype.choices else ""
            for genotype in genotypes
        ]
        rows.append(Choices(label, chosen, Counter(chosen).most_common(1)[0][0]))
    return rows


def _letters(number: int) -> str:
    """Return the group name of a number: A, B, ..., Z, AA, AB, ..."""
    return (_letters(number // 26 - 1) if number >= 26 else "") + chr(ord("A") + number % 26)


def _recorded(found: Sequence[Group]) -> dict[str, dict[str, list[Series]]]:
    """Return the series of all runs, by title and group."""
    titles: dict[str, dict[str, list[Series]]] = {}
    for group in found:
        for run in group.runs:
            series = {f"{level}: loss": running_mean(loss) for level, loss in run.losses.items()}
            observed = run.observers.get(COLLAPSE, {})
            series |= {title: observed[title] for title in ("entropy", "margin") if title in observed}
            for title, each in series.items():
                titles.setdefault(title, {}).setdefault(group.name, []).append(each)
    return titles


def _row(group: Group, run: Recorded, names: Sequence[str]) -> list[Any]:
    parameters = None
    if run.genotype:
        try:
            parameters = str(size(run.genotype))
        except NASError:
            parameters = None
    provenance = run.genotype.provenance if run.genotype else None
    margin = min(provenance.margins.values(), default=None) if provenance else None
    scores: Mapping[str, float] = run.scores
    return [
        run.name,
        group.name,
        run.versions.seed,
        run.steps,
        *(scores.get(name) for name in names),
        parameters,
        None if margin is None else f"{margin:.4f}",
    ]


def _mean(group: Group, name: str) -> str | None:
    """Return the mean of a score and its standard deviation over runs."""
    values = [run.scores[name] for run in group.runs if name in run.scores]
    if not values:
        return None
    spread = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4g}{spread}"


def _drawn(runs: Sequence[Recorded]) -> list[tuple[str, dict[str, str]]]:
    """Return the pictures of each genotype; differences from the first genotype of the same space are marked."""
    drawn, room = [], BYTES
    firsts: dict[str, Genotype] = {}
    for run in runs:
        found = {}
        if run.genotype is not None:
            with suppress(NASError):  # the space may be unknown here
                found = draw_pictures(difference(firsts.setdefault(run.genotype.space, run.genotype), run.genotype))
        room -= sum(map(len, found.values()))
        drawn.append((run.name, found if room > 0 else {}))
    return drawn
