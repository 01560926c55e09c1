"""What moves the logits: averages over an epoch, across a resume, and the advice that follows."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nas.multilevel.multilevel import Moved
from nas.run.logit_gradients import LogitGradients, logit_advice, outweighed


def step(loss: list[float], decay: float = 0.0) -> dict[str, Moved]:
    parts = {"loss": {"arch.a/1": torch.tensor(loss)}, "decay": {"arch.a/1": torch.tensor([decay, 0.0])}}
    return {"lower": Moved(1.0, 1.0), "upper": Moved(1.0, 1.0, parts=parts)}


def test_an_epoch_has_the_norm_of_the_mean_and_resumes_within() -> None:
    watch: Any = LogitGradients()
    watch.on_step(1, step([3.0, 1.0]))
    resumed: Any = LogitGradients()
    resumed.load_state_dict(watch.state_dict())
    for each in (watch, resumed):
        each.on_step(2, step([3.0, -1.0], decay=0.5))
        each.on_step(3, {"lower": Moved(1.0, 1.0)})
        assert each.on_epoch(3, None, None) == {"loss/a/1": 3.0, "decay/a/1": 0.25}
        each.on_step(4, step([0.0, 2.0]))
        assert each.on_epoch(4, None, None) == {"loss/a/1": 2.0}, "starts from scratch, without what is zero"
        assert each.on_epoch(5, None, None) == {}


def epoch(loss: float, **parts: list[float]) -> dict[str, Any]:
    """Norms of four decisions."""
    found: dict[str, Any] = {"step": 1, "kind": "observer", "observer": "logits"}
    for part, values in {"loss": [loss] * 4, "response": [9.0] * 4, **parts}.items():
        found |= {f"{part}/cell/{i}": value for i, value in enumerate(values)}
    return found


@pytest.mark.parametrize(
    ("decay", "advised"),
    [
        ([2.0, 2.0, 0.5, 0.5], "weight decay outweighs the loss on 2 of 4 decisions"),
        ([2.0, 2.0, 2.0, 0.5], "weight decay outweighs the loss on 3 of 4 decisions"),
        ([2.0, 0.5, 0.5, 0.5], None),
        ([1.0, 1.0, 1.0, 1.0], None),
    ],
)
def test_half_of_the_decisions_are_worth_advice(decay: list[float], advised: str | None) -> None:
    lines = logit_advice([epoch(1.0, decay=decay)])
    assert [line.partition(":")[0] for line in lines] == ([advised] if advised else [])


def test_most_epochs_count_and_each_regularizer_is_named() -> None:
    strong, weak = epoch(1.0, entropy=[3.0] * 4), epoch(5.0, entropy=[3.0, 3.0, 9.0, None])
    assert outweighed([strong, weak]) == {"entropy": ["cell/2"]}
    assert outweighed([strong, strong, weak]) == {"entropy": ["cell/0", "cell/1", "cell/2", "cell/3"]}
    (line,) = logit_advice([strong, strong, weak])
    assert "regularizer entropy outweighs the loss on 4 of 4" in line
    assert "weight" in line
    assert logit_advice([]) == []
