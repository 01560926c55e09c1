"""Several runs beside each other: scores, curves with bands over seeds, and where their genotypes differ."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from nas.cost import size
from nas.draw import difference
from nas.errors import ConfigError, NASError
from nas.files import parse_yaml, write_text
from nas.genotype import Genotype
from nas.report import history
from nas.report.decisions import choice_text
from nas.report.history import Series, running_mean
from nas.report.page import Report, render
from nas.report.pictures import pictures
from nas.report.plot import Plot, Spread, plot
from nas.report.recorded import Recorded, read_run
from nas.run import flat

BYTES = 1_500_000
"""The most bytes of pictures; later runs go without."""


class Group(NamedTuple):
    """Runs that differ in their seed alone, and the settings that tell them from the other groups."""

    name: str
    runs: list[Recorded]
    settings: dict[str, str]


class Choices(NamedTuple):
    """What each run chose for one decision, an empty text where it has none; and what most of them did."""

    label: str
    chosen: list[str]
    usual: str

    @property
    def differs(self) -> bool:
        """Whether not all runs agree."""
        return len(set(self.chosen)) > 1


def write_comparison(folders: Sequence[str | Path], out: str | Path) -> Report:
    """Write the comparison of two runs or more as one HTML file.

    Raises `ConfigError` for the same folder twice, `InvalidFileError` where one is no run, or `out` cannot be written.
    """
    places = [Path(folder).resolve() for folder in folders]
    if len(set(places)) < len(places):
        raise ConfigError(f"{folders[-1]}: runs to compare must be different folders")
    runs = [read_run(folder) for folder in folders]
    found = groups(runs)
    names = list(dict.fromkeys(name for run in runs for name in run.scores))
    page = render(
        "compare.html",
        runs=runs,
        groups=found,
        columns=["run", "group", "seed", "steps", *names, "parameters", "least margin"],
        rows=[_row(group, run, names) for group in found for run in group.runs],
        scores=names,
        settings=[[key, *(group.settings[key] for group in found)] for key in found[0].settings],
        means=[[group.name, len(group.runs), *(_mean(group, name) for name in names)] for group in found],
        plots=curves(found),
        choices=choices(runs),
        drawn=_drawn(runs),
    )
    write_text(out, page)
    return Report(Path(out))


def groups(runs: Sequence[Recorded]) -> list[Group]:
    """The runs by their configuration but for the seed: A, B, ... with the keys in which they differ."""
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
    """For each level, and each indicator of all decisions, a line for each group: its mean, and one standard deviation
    to both sides where it has several runs."""
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
            plots.append(plot(title, lines, bands=bands, order=[group.name for group in found]))
    return plots


def choices(runs: Sequence[Recorded]) -> list[Choices]:
    """The choices of the runs' genotypes, decision by decision, the in-edges of a node after it."""
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
    """A, B, ..., Z, AA, AB, ..."""
    return (_letters(number // 26 - 1) if number >= 26 else "") + chr(ord("A") + number % 26)


def _recorded(found: Sequence[Group]) -> dict[str, dict[str, list[Series]]]:
    """The series of all runs, by title and name of their group."""
    titles: dict[str, dict[str, list[Series]]] = {}
    for group in found:
        for run in group.runs:
            series = {f"{level}: loss": running_mean(loss) for level, loss in run.losses.items()}
            observed = history.scalars(run.epochs, "indicators")
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
    """The mean of a score, and its standard deviation over the runs."""
    values = [run.scores[name] for run in group.runs if name in run.scores]
    if not values:
        return None
    spread = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4g}{spread}"


def _drawn(runs: Sequence[Recorded]) -> list[tuple[str, dict[str, str]]]:
    """The pictures of each run's genotype; what distinguishes it from that of the first of its space is marked."""
    drawn, room = [], BYTES
    firsts: dict[str, Genotype] = {}
    for run in runs:
        found = {}
        if run.genotype is not None:
            with suppress(NASError):  # where its space is not known here
                found = pictures(difference(firsts.setdefault(run.genotype.space, run.genotype), run.genotype))
        room -= sum(map(len, found.values()))
        drawn.append((run.name, found if room > 0 else {}))
    return drawn
