"""The page and the picture of a study: hypotheses, differences from random search, and a verdict on each method."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

from scipy import stats

from comparisons import Difference, difference, holm
from generated_page import markdown_table
from nas.errors import ConfigError

ALPHA = 0.05
REFERENCE = "random"
TUNING = 100
"""Seeds from this one on choose learning rates; no comparison reads them."""

Row = Mapping[str, Any]
Group = dict[tuple[str, int], list[Row]]


class Compared(NamedTuple):
    """A method at a budget beside random search; `p` is adjusted for all comparisons of the page."""

    method: str
    budget: int
    runs: Sequence[Row]
    regret: float
    difference: Difference
    p: float

    @property
    def verdict(self) -> str:
        if self.p > ALPHA:
            return "not told apart"
        return "better than random search" if self.difference.mean < 0 else "worse than random search"


class Hypothesis(NamedTuple):
    """A statement, and how the comparisons decide it; None if they have not what it is about."""

    text: str
    holds: Callable[[Sequence[Compared]], bool | None]


def _some(better: bool, budgets: Collection[int], searchers: bool) -> Callable[[Sequence[Compared]], bool | None]:
    def holds(compared: Sequence[Compared]) -> bool | None:
        about = [each for each in compared if each.budget in budgets and ("steps" not in each.runs[0]) == searchers]
        return any(each.verdict.startswith("better") for each in about) == better if about else None

    return holds


def _ranks_explain(compared: Sequence[Compared]) -> bool | None:
    largest = max((each.budget for each in compared), default=0)
    points = []
    for each in compared:
        ranks = [rank for row in each.runs if not math.isnan(rank := row.get("spearman", math.nan))]
        if each.budget == largest and ranks:
            points.append((statistics.fmean(ranks), each.regret))
    if len(points) < 4:
        return None
    test = stats.spearmanr(*zip(*points, strict=True), alternative="less")
    return bool(test.pvalue <= ALPHA)


def _collapses_less(compared: Sequence[Compared]) -> bool | None:
    largest = max((each.budget for each in compared), default=0)
    rates = {each.method: collapse_rate(each.runs) for each in compared if each.budget == largest}
    remedies = [rates[name] for name in ("darts-minus", "beta-darts", "sdarts-rs", "pc-darts") if name in rates]
    return max(remedies) <= rates["darts-v1"] if remedies and "darts-v1" in rates else None


HYPOTHESES = (
    Hypothesis(
        "With 10 or 20 trainings, some searcher that trains networks is better than random search.",
        _some(True, (10, 20), True),
    ),
    Hypothesis(
        "With 2 trainings, some recipe is better than random search: it computes with all networks at once, where"
        " random search sees two.",
        _some(True, (2,), False),
    ),
    Hypothesis(
        "With 20 trainings, no recipe is better than random search, which then sees a quarter of the space.",
        _some(False, (20,), False),
    ),
    Hypothesis(
        "At the largest budget, recipes whose supernets rank networks better have less regret (Spearman, one-sided).",
        _ranks_explain,
    ),
    Hypothesis(
        "At the largest budget, DARTS-, beta-DARTS, SDARTS-RS and PC-DARTS collapse at most as often as DARTS.",
        _collapses_less,
    ),
)
"""Stated before any run."""


def collapse_rate(runs: Iterable[Row]) -> float:
    """The share of runs whose network collapsed: half of its edges skip, and its accuracy is below the median."""
    return statistics.fmean(bool(row["collapsed"]) for row in runs)


def grouped(rows: Iterable[Row]) -> Group:
    """The runs that count, by method and budget."""
    found: Group = {}
    for row in rows:
        if row["seed"] < TUNING and "regret" in row:
            found.setdefault((row["method"], row["budget"]), []).append(row)
    return found


FEWEST = 3
"""Fewer runs of a method have an interval too wide to say anything, so the page leaves them out."""


def compare(rows: Iterable[Row]) -> list[Compared]:
    """Compare each method with random search at each budget for which both have at least three runs.

    Raises:
        ConfigError: random search has none.
    """
    groups = {key: runs for key, runs in grouped(rows).items() if len(runs) >= FEWEST}
    if not any(method == REFERENCE for method, _ in groups):
        raise ConfigError(f"the study needs at least {FEWEST} runs of random search, got fewer. Run it first")
    regrets = {key: [row["regret"] for row in runs] for key, runs in groups.items()}
    differences = {
        (method, budget): difference(values, regrets[REFERENCE, budget])
        for (method, budget), values in regrets.items()
        if method != REFERENCE and (REFERENCE, budget) in regrets
    }
    adjusted = holm({f"{method}/{budget}": each.p for (method, budget), each in differences.items()})
    return [
        Compared(
            method,
            budget,
            groups[method, budget],
            statistics.fmean(regrets[method, budget]),
            found,
            adjusted[f"{method}/{budget}"],
        )
        for (method, budget), found in differences.items()
    ]


def page(rows: Collection[Row], picture: str) -> str:
    """The page, in Markdown."""
    compared = compare(rows)
    lines = [
        "# Was the search worth it?",
        "",
        "Regret: mean test accuracy of the best network of the table minus that of the network chosen, in points."
        " A budget is in mean trainings of CPU time, the search and the training of its result included."
        f" p: two-sided permutation test against random search, adjusted by Holm for all {len(compared)} comparisons."
        " A recipe takes the steps that an idle machine takes for the budget; CPU and wall seconds are those of its"
        " run, which other programs may have slowed down.",
        "",
        *_summary(compared),
        "",
        f"![Difference of the regret from that of random search, with 95 % intervals]({picture})",
        "",
        "## Hypotheses",
        "",
    ]
    for number, hypothesis in enumerate(HYPOTHESES, 1):
        outcome = {True: "supported", False: "not supported", None: "not decided"}[hypothesis.holds(compared)]
        lines.append(f"{number}. {hypothesis.text} **{outcome.capitalize()}.**")
    for budget in sorted({budget for _, budget in grouped(rows)}):
        lines += ["", f"## {budget} trainings", "", *_table(rows, [each for each in compared if each.budget == budget])]
    refused = sorted({(row["method"], row["budget"], row["refused"]) for row in rows if "refused" in row})
    lines += [""] + [f"- `{method}` with {budget} trainings: {reason}" for method, budget, reason in refused]
    if ranks := _ranks(rows):
        lines += ["", "## Do supernets rank networks?", "", *ranks]
    lines += ["", "## Learning rates", "", *_learning_rates(rows)]
    return "\n".join(lines).rstrip() + "\n"


def _summary(compared: Sequence[Compared]) -> list[str]:
    """What beats random search and what does not, in words."""
    lines = []
    for verdict in ("better than random search", "worse than random search", "not told apart"):
        found: dict[int, list[str]] = {}
        for each in compared:
            if each.verdict == verdict:
                found.setdefault(each.budget, []).append(f"`{each.method}`")
        told = "; ".join(f"with {budget} trainings {', '.join(names)}" for budget, names in sorted(found.items()))
        lines.append(f"- **{verdict.capitalize()}** at equal cost: {told or 'none'}.")
    return lines


def _table(rows: Collection[Row], compared: Sequence[Compared]) -> list[str]:
    heads = ("method", "runs", "regret", "difference", "95 %", "p", "verdict")
    heads += ("rank correlation", "in the top", "collapsed", "CPU s", "search wall s")
    budgets = {each.budget for each in compared}
    cells = [
        (method, *_spent(runs, statistics.fmean(row["regret"] for row in runs), ("", "", "", "")))
        for (method, budget), runs in grouped(rows).items()
        if method == REFERENCE and budget in budgets
    ]
    for each in sorted(compared, key=lambda each: each.regret):
        found = each.difference
        told = (f"{found.mean:+.2f}", f"{found.low:+.2f} to {found.high:+.2f}", f"{each.p:.3f}", each.verdict)
        cells.append((each.method, *_spent(each.runs, each.regret, told)))
    return markdown_table(heads, cells)


def _spent(runs: Sequence[Row], regret: float, told: Sequence[str]) -> tuple[str, ...]:
    return (
        str(len(runs)),
        f"{regret:.2f}",
        *told,
        _mean(runs, "spearman", "{:+.2f}"),
        _mean(runs, "top", "{:+.2f}"),
        f"{100 * collapse_rate(runs):.0f} %",
        _mean(runs, "cpu_seconds", "{:.0f}"),
        _mean(runs, "wall_seconds", "{:.0f}"),
    )


def _mean(runs: Sequence[Row], field: str, form: str) -> str:
    values = [value for row in runs if (value := row.get(field)) is not None and not math.isnan(value)]
    return form.format(statistics.fmean(values)) if values else ""


def _ranks(rows: Collection[Row]) -> list[str]:
    """The rank correlation of each recipe's supernet by budget, with the steps of its search."""
    found: dict[str, dict[int, Row]] = {}
    for (method, budget), runs in grouped(rows).items():
        if ranked := [row for row in runs if not math.isnan(row.get("spearman", math.nan))]:
            found.setdefault(method, {})[budget] = ranked[0]
    budgets = sorted({budget for each in found.values() for budget in each})
    cells = [
        (name, *(f"{each[b]['spearman']:+.2f} ({each[b]['steps']:,})" if b in each else "" for b in budgets))
        for name, each in found.items()
    ]
    return cells and [
        "Spearman's rank correlation between the scores of all networks with the shared weights and their test"
        " accuracies; in brackets the steps of the search. One seed, also of budgets with too few runs for a table"
        " above.",
        "",
        *markdown_table(("method", *(f"{budget} trainings" for budget in budgets)), cells),
    ]


def _learning_rates(rows: Collection[Row]) -> list[str]:
    """Regret of the tuning seeds by factor of the paper's learning rate."""
    found: dict[str, dict[float, list[float]]] = {}
    for row in rows:
        if row["seed"] >= TUNING and "regret" in row:
            found.setdefault(row["method"], {}).setdefault(row["factor"], []).append(row["regret"])
    factors = sorted({factor for each in found.values() for factor in each})
    if not factors:
        return ["No learning rate was tuned: all are those of the papers."]
    cells = [
        (name, *(f"{statistics.fmean(each[factor]):.2f}" if factor in each else "" for factor in factors))
        for name, each in found.items()
    ]
    return [
        "Mean regret of the tuning seeds, by factor of the paper's learning rate of the arch parameters.",
        "",
        *markdown_table(("method", *(f"x {factor:g}" for factor in factors)), cells),
    ]


ROW, LEFT, WIDE, TOP = 18, 110, 150, 44
"""Of the picture, in pixels: height of a row, width of the names, width of a budget, height of the head."""


def picture(rows: Collection[Row]) -> str:
    """Draw the differences from random search as an SVG document: a row for each method, a column for each budget."""
    compared = compare(rows)
    methods, budgets = list(dict.fromkeys(each.method for each in compared)), sorted({each.budget for each in compared})
    reaches = {
        budget: max(abs(bound) for each in compared if each.budget == budget for bound in each.difference[:3]) or 1.0
        for budget in budgets
    }
    width, height = LEFT + WIDE * len(budgets), TOP + ROW * len(methods) + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
        ' font-family="sans-serif" font-size="11">',
        "<title>Regret minus that of random search, with 95 % intervals</title>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for column, budget in enumerate(budgets):
        middle, reach = LEFT + WIDE * (column + 0.5), reaches[budget]
        parts.append(f'<text x="{middle}" y="14" text-anchor="middle" font-weight="bold">{budget} trainings</text>')
        parts.append(f'<text x="{middle - 6}" y="30" text-anchor="end" fill="#555">better</text>')
        parts.append(f'<text x="{middle + 6}" y="30" fill="#555">worse</text>')
        parts.append(f'<path d="M{middle} 34V{height - 20}" stroke="#999"/>')
        for sign, anchor in ((-1, "start"), (1, "end")):
            x = middle + sign * 0.45 * WIDE
            parts.append(
                f'<text x="{x}" y="{height - 6}" text-anchor="{anchor}" fill="#555">{sign * reach:+.1f}</text>'
            )
    for line, method in enumerate(methods):
        y = TOP + ROW * (line + 0.5)
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{escape(method)}</text>')
        for each in compared:
            if each.method == method:
                middle = LEFT + WIDE * (budgets.index(each.budget) + 0.5)
                mean, low, high = (middle + 0.45 * WIDE * value / reaches[each.budget] for value in each.difference[:3])
                colour = {"b": "#1b7837", "w": "#b2182b"}.get(each.verdict[0], "#555")
                parts.append(f'<path d="M{low:.1f} {y}H{high:.1f}" stroke="{colour}" stroke-width="2"/>')
                parts.append(f'<circle cx="{mean:.1f}" cy="{y}" r="3.5" fill="{colour}"/>')
    return "\n".join([*parts, "</svg>", ""])
