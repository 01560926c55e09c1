from __future__ import annotations

import math
import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.optimize import minimize

from nas.errors import InvalidFileError
from nas.report import charts
from nas.report.history import Mixing, Series

OPERATIONS = ["res3", "res5", "dense3", "dense5", "dil3", "dil5", "spatial_attention", "channel_attention"]
NAN = math.nan


def mixing(count: int = 8, steps: int = 20) -> Mixing:
    logits = np.linspace(-1, 1, count) * np.arange(steps)[:, None] / steps
    weights = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return Mixing(OPERATIONS[:count], list(range(0, 5 * steps, 5)), weights.tolist())


def words(path: Path) -> list[str]:
    """The texts of a chart: Matplotlib draws them as paths, and notes each in a comment."""
    ElementTree.parse(path)
    return [text.strip() for text in re.findall(r"<!-- (.*?) -->", path.read_text())]


def test_each_decision_has_a_panel_with_its_choice_and_every_candidate(tmp_path: Path) -> None:
    path = tmp_path / "new" / "mixing.svg"
    charts.mixing_chart(path, {"alignment": mixing(2), "dna/0": mixing(), "dna/1": mixing()}, {"dna/0": "dil5"})
    told = words(path)
    assert "dna/0 → dil5" in told
    assert "alignment  not in the genotype" in told
    assert all(told.count(name) == 2 + (name in OPERATIONS[:2]) for name in OPERATIONS)


def test_without_a_genotype_nothing_stands_out(tmp_path: Path) -> None:
    charts.mixing_chart(tmp_path / "mixing.svg", {"alignment": mixing(2)}, {})
    assert "alignment" in words(tmp_path / "mixing.svg")
    assert "stroke-width: 2.4" not in (tmp_path / "mixing.svg").read_text()
    charts.mixing_chart(tmp_path / "mixing.svg", {"alignment": mixing(2)}, {"alignment": "res3"})
    assert (tmp_path / "mixing.svg").read_text().count("stroke-width: 2.4") == 1


def test_the_chosen_width_is_a_number(tmp_path: Path) -> None:
    series = Mixing(["8", "16"], [0, 1], [[0.5, 0.5], [0.4, 0.6]])
    charts.mixing_chart(tmp_path / "mixing.svg", {"width": series}, {"width": 16})
    assert "width → 16" in words(tmp_path / "mixing.svg")


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg", "a.png", "b.png"):
        charts.mixing_chart(tmp_path / name, {"dna/0": mixing()}, {"dna/0": "dil5"})
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert "<dc:date>" not in (tmp_path / "a.svg").read_text()


def test_the_users_style_does_not_matter_and_stays(tmp_path: Path) -> None:
    from matplotlib import rc_context, rcParams

    charts.loss_chart(tmp_path / "a.svg", {"lower": Series([0, 1], [1.0, 2.0])})
    with rc_context({"font.size": 30.0, "axes.facecolor": "black", "svg.hashsalt": "other"}):
        charts.loss_chart(tmp_path / "b.svg", {"lower": Series([0, 1], [1.0, 2.0])})
        assert rcParams["font.size"] == 30.0
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize(
    "values", [[0.2], [NAN, NAN], [0.0, 0.0], [-1.0, 5.0], [1.0, NAN, 0.001], [1e-9, 1e9]], ids=str
)
def test_any_loss_can_be_drawn(tmp_path: Path, values: list[float]) -> None:
    charts.loss_chart(tmp_path / "losses.svg", {"$lower$ <&>": Series(list(range(len(values))), values)})
    assert "$lower$ &lt;&amp;&gt;" in (tmp_path / "losses.svg").read_text()


def test_any_mixing_weights_can_be_drawn(tmp_path: Path) -> None:
    for weights in ([[1.0, 0.0]], [[0.5, 0.5], [NAN, NAN]], [[NAN, NAN]]):
        charts.mixing_chart(tmp_path / "mixing.png", {"a": Mixing(["x", "y"], [*range(len(weights))], weights)}, {})
        with Image.open(tmp_path / "mixing.png") as picture:
            assert picture.width > 500


def test_bars_tell_their_values_with_equal_digits(tmp_path: Path) -> None:
    groups = {"bikes": {"rainy input": 24.806, "derained": 36.0}, "carphone": {"rainy input": 9.5, "derained": 37.1}}
    charts.bar_chart(tmp_path / "bars.svg", "PSNR", groups, note="higher is better")
    told = words(tmp_path / "bars.svg")
    assert {"PSNR", "higher is better", "bikes", "carphone", "24.81", "36.00", "9.50", "37.10"} <= set(told)
    assert told.count("rainy input") == told.count("derained") == 2
    charts.bar_chart(tmp_path / "bars.svg", "gain", {"": {"a": 0.0, "b": -0.51234}})
    assert "−0.5123" in words(tmp_path / "bars.svg") or "-0.5123" in words(tmp_path / "bars.svg")
    charts.bar_chart(tmp_path / "bars.svg", "nothing", {"": {"a": 0.0}})


def test_long_runs_are_thinned_but_keep_their_ends(tmp_path: Path) -> None:
    count = 50_000
    charts.loss_chart(
        tmp_path / "losses.svg", {"lower": Series(list(range(count)), [1.0 + i % 3 for i in range(count)])}
    )
    assert (tmp_path / "losses.svg").stat().st_size < 150_000
    steps, values = charts._thinned(list(range(count)), list(range(count)))
    assert (steps[0], steps[-1], values[-1]) == (0, count - 1, count - 1)
    assert len(steps) == 600


def test_a_chart_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidFileError, match=r"file/losses\.svg: cannot be written"):
        charts.loss_chart(tmp_path / "file" / "losses.svg", {"lower": Series([0], [1.0])})


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_names_are_spread_as_little_as_can_be(values: list[float]) -> None:
    """Against a general solver: least squares under gaps and bounds."""
    gap = 0.15
    places = charts._spread(values, gap=gap, top=1.0)
    order = sorted(range(len(values)), key=lambda i: (values[i], i))
    assert all(places[b] - places[a] >= gap - 1e-9 for a, b in pairwise(order))
    assert min(places) >= 0.0
    assert max(places) <= 1.0 + 1e-9
    target = np.array([values[i] for i in order])
    best = minimize(
        lambda x: ((x - target) ** 2).sum(),
        np.linspace(0, 1, len(values)),
        method="SLSQP",
        bounds=[(0.0, 1.0)] * len(values),
        constraints=[{"type": "ineq", "fun": lambda x: np.diff(x) - gap}] if len(values) > 1 else [],
    )
    assert ((np.array(places)[order] - target) ** 2).sum() <= best.fun + 1e-6


@given(st.lists(st.floats(-5, 5) | st.just(NAN), min_size=1, max_size=20), st.integers(1, 4))
def test_the_running_mean(values: list[float], reach: int) -> None:
    means = charts._running_mean(np.array(values), reach)
    for i, mean in enumerate(means):
        near = [v for v in values[max(0, i - reach) : i + reach + 1] if not math.isnan(v)]
        assert math.isnan(mean) if not near else mean == pytest.approx(sum(near) / len(near), abs=1e-9)
