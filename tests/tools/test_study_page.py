from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from nas.errors import ConfigError

Row = dict[str, Any]


@pytest.fixture(scope="module")
def study_page(load_tool: Callable[[str], ModuleType]) -> ModuleType:
    return load_tool("study_page")


def runs(method: str, budget: int, regret: float, *, seeds: int = 8, **fields: Any) -> list[Row]:
    noise = np.random.default_rng(budget).normal(0, 0.1, seeds)
    return [
        {
            **{"method": method, "budget": budget, "seed": seed, "factor": 1.0, "collapsed": seed < 2},
            **{"regret": regret + float(noise[seed]), "cpu_seconds": 7.0, "wall_seconds": 9.0},
            **fields,
        }
        for seed in range(seeds)
    ]


ROWS = [
    *runs("random", 2, 2.0),
    *runs("good", 2, 1.0, steps=5, spearman=0.75, top=-0.5),
    *runs("bad", 2, 3.0, steps=5),
    *runs("same", 2, 2.0, steps=5),
    *runs("random", 20, 1.0),
    *runs("evolution", 20, 0.2),
    {"method": "dear", "budget": 2, "seed": 0, "factor": 1.0, "refused": "one step costs more than the budget"},
    {**runs("good", 5, 4.0)[0], "seed": 100, "factor": 10.0},
]


def test_verdicts_name_the_direction_and_are_adjusted(study_page: ModuleType) -> None:
    found = {(each.method, each.budget): each for each in study_page.compare(ROWS)}
    assert {key: each.verdict for key, each in found.items()} == {
        ("good", 2): "better than random search",
        ("bad", 2): "worse than random search",
        ("same", 2): "not told apart",
        ("evolution", 20): "better than random search",
    }
    good = found["good", 2]
    assert good.difference.mean == pytest.approx(-1.0)
    assert good.p == pytest.approx(4 * good.difference.p)  # the least of four


def test_the_page_states_hypotheses_tables_and_refusals(study_page: ModuleType) -> None:
    text = study_page.page(ROWS, "study.svg")
    assert "![" in text
    assert "(study.svg)" in text
    assert re.search(r"1\. With 10 or 20 .*\*\*Supported\.\*\*", text)
    assert re.search(r"2\. With 2 .*\*\*Supported\.\*\*", text)
    assert re.search(r"3\. With 20 .*\*\*Not decided\.\*\*", text)
    assert re.search(
        r"\| good \| 8 \| 1\.0\d \| -1\.00 \| -1\.\d\d to -0\.\d\d \| 0\.0\d+ \| better .*\+0\.75 \| -0\.50 \| 25 %",
        text,
    )
    assert re.search(r"\| method \| 2 trainings \|\n.*\n\| good \| \+0\.75 \(5\) \|\n\n", text)
    assert "- `dear` with 2 trainings: one step costs more than the budget" in text
    assert re.search(r"\| method \| x 10 \|.*\| good \| \d", text.partition("Learning rates")[2], re.DOTALL)
    assert text.index("| random | 8 | 2.0") < text.index("| good | 8 |")


def test_a_hypothesis_that_fails_is_not_supported(study_page: ModuleType) -> None:
    rows = [*runs("random", 20, 1.0), *runs("recipe", 20, 0.2, steps=5), *runs("evolution", 20, 1.0)]
    text = study_page.page(rows, "study.svg")
    assert re.search(r"1\. .*\*\*Not supported\.\*\*", text)
    assert re.search(r"3\. .*\*\*Not supported\.\*\*", text)


def test_ranks_that_explain_the_regret(study_page: ModuleType) -> None:
    def outcome(sign: float) -> bool | None:
        methods = [row for i in range(6) for row in runs(f"m{i}", 20, 1 + sign * i, steps=1, spearman=i / 10)]
        methods += runs("m6", 20, 1.0, steps=1, spearman=math.nan)  # a supernet that scores all networks alike
        hypothesis = study_page.HYPOTHESES[3]
        result: bool | None = hypothesis.holds(study_page.compare([*runs("random", 20, 1.0), *methods]))
        return result

    assert outcome(-1.0) is True
    assert outcome(1.0) is False


def test_remedies_that_collapse_at_most_as_often_as_darts(study_page: ModuleType) -> None:
    def outcome(darts: bool, remedy: bool) -> bool | None:
        rows = [*runs("random", 20, 1.0), *runs("darts-v1", 20, 1.0, steps=1, collapsed=darts)]
        rows += runs("beta-darts", 20, 1.0, steps=1, collapsed=remedy)
        result: bool | None = study_page.HYPOTHESES[4].holds(study_page.compare(rows))
        return result

    assert outcome(True, False) is True
    assert outcome(False, True) is False


def test_the_picture_has_an_interval_for_each_comparison(study_page: ModuleType) -> None:
    root = ElementTree.fromstring(study_page.picture(ROWS))
    name = "{http://www.w3.org/2000/svg}"
    places = [(dot.get("fill"), float(dot.get("cx") or 0)) for dot in root.iter(f"{name}circle")]
    dots = {colour: x for colour, x in places if x < study_page.LEFT + study_page.WIDE}
    middle = study_page.LEFT + study_page.WIDE / 2
    assert dots["#1b7837"] < middle < dots["#b2182b"]
    assert len(places) == 4
    ends = [float(end) for path in root.iter(f"{name}path") for end in re.findall(r"[\d.]+", path.get("d") or "")[::2]]
    for column in range(2):  # each has a scale of its own, which the widest interval fills
        middle = study_page.LEFT + study_page.WIDE * (column + 0.5)
        reach = max(abs(end - middle) for end in ends if abs(end - middle) < study_page.WIDE / 2)
        assert reach == pytest.approx(0.45 * study_page.WIDE, abs=0.1)


def test_methods_of_few_runs_are_left_out(study_page: ModuleType) -> None:
    fewest = study_page.FEWEST
    rows = [*runs("random", 2, 2.0), *runs("few", 2, 1.0, seeds=fewest - 1), *runs("enough", 2, 1.0, seeds=fewest)]
    assert [each.method for each in study_page.compare(rows)] == ["enough"]
    assert "| few |" not in study_page.page(rows, "study.svg")


def test_a_study_without_random_search_is_an_error(study_page: ModuleType) -> None:
    with pytest.raises(ConfigError, match="needs at least 3 runs of random search, got fewer"):
        study_page.page([*runs("good", 2, 1.0)], "study.svg")


def test_the_page_in_the_docs_is_that_of_the_rows_beside_it(study_page: ModuleType) -> None:
    docs = Path(__file__).parents[2] / "docs"
    rows = [json.loads(line) for line in (docs / "study.jsonl").read_text(encoding="utf-8").splitlines()[1:]]
    assert (docs / "study.md").read_text(encoding="utf-8") == study_page.page(rows, "study.svg")
