"""The page, picture and curves of a comparison of searchers."""

from __future__ import annotations

import csv
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from nas.benchmark.simulation import Comparison, compare
from nas.benchmark.table import Published, Target
from nas.report.benchmark_page import published_rows, result_rows, write_benchmark
from parsed_page import Page
from tabulated import toy_table

PUBLISHED = (
    Published("random", "toy", 76.5, 0.5, 3, "<i>A paper</i>"),
    Published("reinforce", "toy", 77.0, 0.5, 3, "A paper"),
    Published("random", "toy", 77.0, 0.5, 100, "A paper"),
)


@pytest.fixture(scope="module")
def found() -> Comparison:
    searchers = {"random": "random", "evolution <1>": {"name": "evolution", "population": 3}}
    return compare("toy & table", toy_table(), Target("val", "test"), searchers, seeds=6, evaluations=12)


def test_the_page_has_results_beside_published_ones(found: Comparison, tmp_path: Path) -> None:
    text = write_benchmark(found, tmp_path, published=PUBLISHED, source="<b>us</b>").path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.handlers == []
    assert [link for link in page.links if not link.startswith("#")] == []
    for hostile in ("<b>us", "<i>A paper", "evolution <1>"):
        assert hostile not in text
    told = " ".join(page.text.split())
    for shown in (
        "toy & table",
        "6 networks",
        "Searchers see val; test judges, at best 78",
        "evolution <1>",
        "A paper",
    ):
        assert shown in told


def test_the_curves_have_every_number_of_evaluations(found: Comparison, tmp_path: Path) -> None:
    write_benchmark(found, tmp_path)
    with (tmp_path / "curves.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["searcher"], row["evaluations"]) for row in rows] == [
        (name, str(number)) for name in ("random", "evolution <1>") for number in range(1, 13)
    ]
    regret = found.curves["random"].regret
    assert float(rows[4]["regret"]) == pytest.approx(regret.mean[4], rel=1e-5)
    assert float(rows[4]["regret_low"]) == pytest.approx(regret.low[4], rel=1e-5)
    assert float(rows[4]["regret_high"]) == pytest.approx(regret.high[4], rel=1e-5)


def test_the_picture_has_a_line_and_a_band_for_each_searcher(found: Comparison, tmp_path: Path) -> None:
    write_benchmark(found, tmp_path)
    picture = ET.parse(tmp_path / "regret.svg").getroot()
    paths = picture.findall("{*}g/{*}path")
    assert len([path for path in paths if path.get("fill", "none") != "none"]) == 2
    assert len([path for path in paths if path.get("stroke", "#ddd") != "#ddd"]) == 2
    texts = ["".join(text.itertext()) for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert {"random", "evolution <1>", "evaluations", "regret"} <= set(texts)
    assert any(text.startswith("toy & table: mean regret in test over 6 seeds") for text in texts)


def test_rows(found: Comparison) -> None:
    rows = result_rows(found, PUBLISHED)
    assert [row[:2] for row in rows[:3]] == [["random", 3], ["random", 10], ["random", 12]]
    random, reinforce, beyond = published_rows(found, PUBLISHED)
    result = found.curves["random"].result
    assert random == [
        "random",
        "76.500",
        "0.500",
        f"{result.mean[2]:.3f}",
        f"{result.deviation[2]:.3f}",
        3,
        "<i>A paper</i>",
    ]
    assert reinforce[3:5] == beyond[3:5] == [None, None]


def test_a_single_seed_has_no_interval(tmp_path: Path) -> None:
    found = compare("toy", toy_table(), Target("val", "test"), {"random": "random"}, seeds=1, evaluations=1)
    assert result_rows(found)[0][3] is None
    write_benchmark(found, tmp_path)
