from __future__ import annotations

import math
from pathlib import Path

import pytest

from nas.errors import InvalidFileError
from nas.report import history
from nas.report.history import Series
from nas.run.folder import read_records


def test_mixing_weights_by_decision(folder: Path) -> None:
    mixing = history.mixing(read_records(folder))
    assert list(mixing) == ["alignment", "dna/0", "cell/2<-0"]
    assert mixing["alignment"].candidates == ["ofm", "tgm"]
    assert mixing["alignment"].steps == [10, 20, 30, 40]
    assert [round(first, 6) for first, _ in mixing["alignment"].weights] == [0.6, 0.7, 0.8, 0.9]
    assert mixing["cell/2<-0"].candidates == ["4", "8"]


def test_losses_by_level_and_every_scalar(folder: Path) -> None:
    records = read_records(folder)
    losses = history.losses(records)
    assert list(losses) == ["lower", "upper"]
    assert losses["lower"] == (list(range(1, 41)), [1.0 / step for step in range(1, 41)])
    assert list(history.scalars(records, "train")) == ["lower/loss", "lower/norm", "upper/loss"]
    assert [math.isnan(value) for value in history.scalars(records, "train")["lower/norm"].values].index(True) == 6
    assert list(history.scalars(records, "evaluate")) == ["psnr_y"]


def test_a_decision_without_weights_is_left_out() -> None:
    assert history.mixing([{"kind": "decisions", "decisions": {"a": ["x", "y"]}}]) == {}


@pytest.mark.parametrize(
    ("names", "message"),
    [({}, r"step 3: 'a' .*\(none recorded\), got 2"), ({"a": ["x", "y", "z"]}, r"step 3: 'a' .* \(x, y, z\), got 2")],
)
def test_weights_that_fit_no_candidates_are_named(names: dict[str, list[str]], message: str) -> None:
    records = [{"kind": "decisions", "decisions": names}, {"kind": "mixing", "step": 3, "weights": {"a": [0.5, 0.5]}}]
    with pytest.raises(InvalidFileError, match=message):
        history.mixing(records)


def test_the_running_mean_leaves_out_what_is_not_finite() -> None:
    series = Series([1, 2, 3, 4], [1.0, math.nan, 3.0, 5.0])
    assert history.running_mean(series, 1).values == [1.0, 2.0, 4.0, 4.0]
    assert history.running_mean(series, 0).values[2:] == [3.0, 5.0]
    assert math.isnan(history.running_mean(Series([1], [math.nan])).values[0])


def test_the_least_value_is_finite_where_one_is() -> None:
    assert Series([1, 2, 3], [math.nan, 3.0, 2.0]).least == 2
    assert Series([1], [math.nan]).least == 0


def test_thinning_keeps_both_ends() -> None:
    assert list(history.thinned(3, 10)) == [0, 1, 2]
    assert list(history.thinned(101, 5)) == [0, 25, 50, 75, 100]
    assert list(history.thinned(1, 5)) == [0]
