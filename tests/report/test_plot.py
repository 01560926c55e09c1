from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.report.history import Series
from nas.report.plot import POINTS, Plot, Spread, make_plot

NAN = math.nan


def points(path: str) -> list[tuple[float, float]]:
    """The points of a path, in its square of a thousand units."""
    return [(float(x), float(y)) for x, y in re.findall(r"[ML](\S+) (\S+?)(?=[MLZ]|$)", path)]


def line(*values: float, **options: object) -> Plot:
    return make_plot("loss", {"a": Series(list(range(len(values))), list(values))}, **options)  # type: ignore[arg-type]


def test_a_line_goes_from_the_left_to_the_right_and_upwards() -> None:
    drawn = line(0.0, 1.0, 4.0, limits=(0.0, 4.0))
    assert points(drawn.lines[0].path) == [(0, 1000), (500, 750), (1000, 0)]
    assert [tick for tick in drawn.up if tick.text == "2"] == [(0.5, "2")]
    assert (drawn.first, drawn.last) == (0, 2)
    assert [(tick.place, tick.text) for tick in drawn.across] == [(0, "0"), (0.5, "1"), (1, "2")]


def test_not_a_number_leaves_a_gap() -> None:
    drawn = line(1.0, 2.0, NAN, 3.0, 1.0)
    assert drawn.lines[0].path.count("M") == 2
    assert len(points(drawn.lines[0].path)) == 4
    assert drawn.lines[0].values[2] is None
    assert line(NAN, NAN).lines[0].path == ""
    assert line(NAN).summary == "a: never finite"


def test_a_logarithmic_axis_where_the_data_ask_for_it() -> None:
    drawn = line(0.01, 0.1, 1.0)
    assert [y for _, y in points(drawn.lines[0].path)] == [1000, 500, 0]
    assert {"0.01", "0.1", "1"} & {tick.text for tick in drawn.up}
    assert [y for _, y in points(line(0.01, 0.1, 1.0, limits=(0, 1)).lines[0].path)] == [990, 900, 0]
    assert points(line(-1.0, 0.1, 100.0).lines[0].path)[1][1] > 900, "linear, as there is a negative value"


def test_bands_and_the_line_of_reference() -> None:
    drawn = make_plot(
        "loss",
        {"a": Series([0, 10], [1.0, 2.0]), "b": Series([0, 10], [0.0, 4.0])},
        bands={"b": Spread([0, 10], [0.0, 3.0], [1.0, 4.0])},
        level=1.0,
        limits=(0.0, 4.0),
        bold="b",
    )
    assert points(drawn.bands[0].path) == [(0, 750), (1000, 0), (1000, 250), (0, 1000)]
    assert (drawn.bands[0].slot, drawn.level) == (1, 0.25)
    assert [each.bold for each in drawn.lines] == [False, True]
    assert drawn.summary == "a: from 1 to 2, between 1 and 2; b: from 0 to 4, between 0 and 4"


def test_a_faint_line_has_the_colour_of_its_own() -> None:
    series = Series([1, 2], [1.0, 2.0])
    drawn = make_plot("loss", {"a": series, "b": series}, faint={"b": series})
    assert [(each.name, each.slot, each.faint) for each in drawn.lines] == [
        ("b", 1, True),
        ("a", 0, False),
        ("b", 1, False),
    ]


def test_an_order_keeps_colours_where_a_line_is_missing() -> None:
    assert make_plot("loss", {"b": Series([1], [1.0])}, order=["a", "b"]).lines[0].slot == 1


def test_long_series_are_thinned_to_what_can_be_seen() -> None:
    drawn = line(*(float(i) for i in range(5000)))
    assert len(drawn.lines[0].steps) == POINTS
    assert (drawn.lines[0].steps[0], drawn.lines[0].steps[-1]) == (0, 4999)


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ((0.0, 200_000.0), {"0", "100k", "200k"}),
        ((1e-5, 4e-5), {"1e-5", "2e-5", "3e-5", "4e-5"}),
        ((0.0, 3e6), {"0", "1M", "2M", "3M"}),
        ((5.0, 5.0), {"4", "6"}),
    ],
)
def test_ticks_are_round_and_short(values: tuple[float, ...], texts: set[str]) -> None:
    assert texts <= {tick.text for tick in line(*values).up}


@given(st.lists(st.one_of(st.floats(-1e9, 1e9), st.just(NAN)), min_size=1, max_size=30))
def test_everything_lies_in_the_square(values: list[float]) -> None:
    drawn = line(*values)
    assert all(0 <= x <= 1000 and -0.1 <= y <= 1000.1 for x, y in points(drawn.lines[0].path))
    assert all(-1e-9 <= tick.place <= 1 + 1e-9 for tick in (*drawn.up, *drawn.across))
    assert len(drawn.up) <= 8
