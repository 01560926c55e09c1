"""Validation scores at each epoch, and the best of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import pytest
from torch import nn

import toy
from nas.genotype.file import Genotype
from nas.run.observer import Start
from nas.run.validation import Validation, best_epoch


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([1.0, 3.0, 2.0], [10, 20, 20]),
        ([2.0, math.nan, 2.0], [10, 10, 10]),
        ([math.inf, -1.0], [None, 20]),
        ([math.nan], [None]),
    ],
)
@pytest.mark.parametrize("better", ["max", "min"])
def test_the_best_epoch_is_the_first_of_the_best_finite_score(
    better: Literal["max", "min"], scores: list[float], best: list[int | None], tmp_path: Path
) -> None:
    """Also if the run is interrupted after each epoch."""
    records = []
    task = toy.config().build_task()
    task.metrics = {"score": better}  # type: ignore[misc]
    state = Validation(lambda network: {}, task).state_dict()
    for i, value in enumerate(scores):
        found = {"score": value if better == "max" else -value, "other": -value}
        validation = Validation(lambda network, found=found: dict(found), task)  # type: ignore[misc]
        validation.load_state_dict(state)
        validation.on_start(Start("search", tmp_path, nn.Identity(), 0, 0))
        step = 10 * (i + 1)
        values = validation.on_epoch(step, nn.Identity(), Genotype(space="toy", choices={"epoch": str(step)}))
        records.append({"kind": "observer", "observer": "validation", "step": step, **values})
        state = validation.state_dict()
        assert best_epoch([{"kind": "train", "step": 5}, *records]) == best[i]
        if best[i]:
            assert Genotype.load(tmp_path / "best.yaml").choices == {"epoch": str(best[i])}
    assert (tmp_path / "best.yaml").exists() == (best[-1] is not None)


def test_a_run_without_scores_has_no_best_epoch() -> None:
    assert best_epoch([{"kind": "train", "step": 5}]) is None
