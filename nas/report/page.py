"""`report.html`: everything about a run on one page, in one file that needs nothing else, not even a network."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from nas.cost import CONVENTION
from nas.draw.theme import DARK
from nas.errors import NASError
from nas.files import write_text
from nas.graph import graph
from nas.report import curves
from nas.report.costs import cost_of
from nas.report.decisions import decisions
from nas.report.pictures import MACRO, describe, pictures
from nas.report.plot import Plot
from nas.report.recorded import Recorded, read_run
from nas.report.sprites import viewers
from nas.report.tables import format_cell
from nas.report.timeline import Timeline, timeline
from nas.task import Preview

REPORT = "report.html"


class Report(NamedTuple):
    """A page that was written; notebooks show it."""

    path: Path

    def _repr_html_(self) -> str:
        """The page in a frame of its own, so that neither its style nor its script meets the notebook's."""
        page = self.path.read_text(encoding="utf-8").replace("<head>", '<head>\n<base href="about:srcdoc">', 1)
        style = "width: 100%; height: 48rem; border: 0"
        return f'<iframe title="{escape(str(self.path))}" style="{style}" srcdoc="{escape(page)}"></iframe>'


def write_report(
    folder: str | Path,
    out: str | Path | None = None,
    *,
    search: str | Path | None = None,
    previews: Sequence[Preview] = (),
) -> Report:
    """Write the report of a run, finished or not, into its folder, or to the file `out`.

    Args:
        folder: of a search or a retraining.
        search: the folder of the search that a retraining began with; by default the one it recorded.
        previews: what the task shows of the retrained network.

    Raises `InvalidFileError` where a folder is no run, or the report cannot be written.
    """
    path = Path(folder, REPORT) if out is None else Path(out)
    run = read_run(folder)
    origin = search if search is not None else run.search
    write_text(path, page(run, read_run(origin) if origin is not None else None, previews))
    return Report(path)


def page(run: Recorded, origin: Recorded | None = None, previews: Sequence[Preview] = ()) -> str:
    """The HTML of the report of a run; `origin` is the search that a retraining began with."""
    search = run if run.mixing else origin
    trained = run if run is not search else None
    course = timeline(search) if search else None
    drawn, undrawn = _drawn(run)
    runs = [(title, part) for title, part in (("Search", search), ("Retraining", trained)) if part]
    return render(
        "run.html",
        run=run,
        runs=runs,
        search=search,
        trained=trained,
        viewers=viewers(previews),
        macro=drawn.pop(MACRO, None),
        cells=drawn,
        undrawn=undrawn,
        timeline=course,
        decisions=decisions(run.genotype, search.mixing if search else {}) if run.genotype else [],
        levels=[
            (title, [level[:1] + level[2:] for level in found], found)
            for title, part in runs
            if (found := curves.levels(part))
        ],
        evaluations=curves.evaluations(run),
        indicators=curves.indicators(search) if search else None,
        cost=cost_of(run, search),
        convention=CONVENTION,
        data=_timeline_data(course) if course else None,
    )


def render(template: str, **context: Any) -> str:
    """A page from a template, its style and script inside; the browser is told to load nothing and run nothing else."""
    script, style = _text("report.js"), _text("report.css") + _dark_pictures()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    environment = Environment(
        loader=PackageLoader("nas.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cell": format_cell, "points": _points}
    return environment.get_template(template).render(policy=policy, script=script, style=style, **context)


def _drawn(run: Recorded) -> tuple[dict[str, str], str]:
    """The pictures of a run's genotype, or why there are none."""
    if run.genotype is None:
        return {}, "Nothing is derived yet."
    try:
        return pictures(graph(describe(run.genotype), run.genotype)), ""
    except NASError as error:
        return {}, str(error)


def _timeline_data(course: Timeline) -> Mapping[str, Any]:
    """What the script needs to move through a timeline."""
    courses = [each for group in course.groups.values() for each in group]
    return {
        "steps": course.steps,
        "weights": [[[round(w, 4) if w == w else 0 for w in epoch] for epoch in each.weights] for each in courses],
        "candidates": [each.candidates for each in courses],
        "chosen": [each.chosen for each in courses],
        "pictures": [list(shown.values()) for shown in course.shown],
    }


def _points(plot: Plot) -> str:
    """What the script needs to tell the values under a pointer."""
    lines = [(line.name, line.steps, line.values) for line in plot.lines if not line.faint]
    return json.dumps([plot.first, plot.last, lines], separators=(",", ":"), allow_nan=False)


def _dark_pictures() -> str:
    """The style that gives pictures, which are drawn light, their dark colours where a reader prefers these."""
    rules = [
        f'.picture [{paint}="{light}"] {{ {paint}: {dark}; }}'
        for light, dark in DARK.items()
        for paint in ("fill", "stroke")
    ]
    return "\n".join(["@media screen and (prefers-color-scheme: dark) {", *rules, "}", ""])


def _text(name: str) -> str:
    return resources.files("nas.report").joinpath("templates", name).read_text(encoding="utf-8")
