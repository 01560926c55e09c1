"""Write `report.html`: one page about a run, in one file without external resources."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from nas.cost.network_cost import CONVENTION
from nas.draw.theme import DARK
from nas.errors import NASError
from nas.files import write_text
from nas.graph.network_graph import build_graph
from nas.report import curves
from nas.report.costs import cost_of
from nas.report.decisions import decision_rows, edge_rows
from nas.report.evaluations import proposals
from nas.report.frame_viewer import viewers
from nas.report.pictures import MACRO, draw_pictures
from nas.report.plot import Plot
from nas.report.recorded import Recorded, read_run
from nas.report.tables import format_cell
from nas.report.timeline import Timeline, make_timeline
from nas.run.task import Preview

REPORT = "report.html"


class Report(NamedTuple):
    """A written page, which notebooks display."""

    path: Path

    def _repr_html_(self) -> str:
        """Return the page in a separate frame, so that its style and script do not affect the notebook."""
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
    """Write the report of a run, finished or not.

    Args:
        folder: the folder of a search or a retraining.
        out: the file to write; by default `report.html` in the folder.
        search: the folder of the search from which a retraining started; by default the recorded one.
        previews: previews by the task of the retrained network.

    Returns:
        The page, which notebooks display.

    Raises:
        InvalidFileError: a folder is no run, or the report cannot be written.
    """
    path = Path(folder, REPORT) if out is None else Path(out)
    run = read_run(folder)
    origin = search if search is not None else run.search
    write_text(path, run_page(run, read_run(origin) if origin is not None else None, previews))
    return Report(path)


def run_page(run: Recorded, origin: Recorded | None = None, previews: Sequence[Preview] = ()) -> str:
    """Return the report of a run as HTML; `origin` is the search from which a retraining started."""
    search = run if run.mixing or proposals(run) else origin
    trained = run if run is not search else None
    course = make_timeline(search) if search and search.mixing else None
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
        decisions=decision_rows(run.genotype, search.mixing if search else {}) if run.genotype else [],
        edges=edge_rows(run.genotype, search.records) if run.genotype and search else [],
        levels=[
            (title, [level[:1] + level[2:] for level in found], found)
            for title, part in runs
            if (found := curves.levels(part))
        ],
        logits=curves.logits(search) if search else [],
        evaluations=curves.evaluations(run),
        validation=curves.validation(trained) if trained else None,
        indicators=curves.indicators(search) if search else None,
        proposals=proposals(search) if search else None,
        observers=[(title, plots) for title, part in runs if (plots := curves.observers(part))],
        cost=cost_of(run, search),
        convention=CONVENTION,
        data=_timeline_data(course) if course else None,
    )


def render(template: str, **context: Any) -> str:
    """Render a template with embedded style and script; its policy forbids browsers to load or run anything else.

    Control characters, which may come from the files of a run, become question marks in a diamond.
    """
    script, style = _text("report.js"), _text("report.css") + _dark_pictures()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    page = _environment().get_template(template).render(policy=policy, script=script, style=style, **context)
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", page)


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@functools.cache
def _environment() -> Environment:
    """The templates, compiled once."""
    environment = Environment(
        loader=PackageLoader("nas.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cell": format_cell, "points": _points}
    return environment


def _drawn(run: Recorded) -> tuple[dict[str, str], str]:
    """Return the pictures of the genotype of a run, or the reason why there are none."""
    try:
        if run.description is None:
            return {}, "Nothing is derived yet."
        return draw_pictures(build_graph(run.description, run.genotype)), ""
    except NASError as error:
        return {}, str(error)


def _timeline_data(course: Timeline) -> Mapping[str, Any]:
    """Return the data for the script of the timeline."""
    courses = [each for group in course.groups.values() for each in group]
    return {
        "steps": course.steps,
        "weights": [[[round(w, 4) if w == w else 0 for w in epoch] for epoch in each.weights] for each in courses],
        "candidates": [each.candidates for each in courses],
        "chosen": [each.chosen for each in courses],
        "pictures": [list(shown.values()) for shown in course.shown],
    }


def _points(plot: Plot) -> str:
    """Return the data for the script that shows values at the pointer, as JSON."""
    lines = [(line.name, line.steps, line.values) for line in plot.lines if not line.faint]
    return json.dumps([plot.first, plot.last, lines], separators=(",", ":"), allow_nan=False)


def _dark_pictures() -> str:
    """Return the style that replaces light colours of pictures if the reader prefers dark pages."""
    rules = [
        f'.picture [{paint}="{light}"] {{ {paint}: {dark}; }}'
        for light, dark in DARK.items()
        for paint in ("fill", "stroke")
    ]
    return "\n".join(["@media screen and (prefers-color-scheme: dark) {", *rules, "}", ""])


def _text(name: str) -> str:
    return resources.files("nas.report").joinpath("templates", name).read_text(encoding="utf-8")
