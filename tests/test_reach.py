from __future__ import annotations

import pytest
import torch

from nas.errors import ConfigError
from nas.files import convert
from nas.levels import Level
from nas.reach import depends_on, require_reached


def test_parameters_in_the_graph_of_a_loss() -> None:
    leaves = {name: torch.ones(2, requires_grad=True) for name in ("a", "b", "c", "d")}
    hidden = leaves["a"] * leaves["b"]
    loss = (hidden + hidden.sin()).sum() + 0 * leaves["c"].sum() + leaves["d"].detach().sum()
    assert depends_on(loss, leaves) == {"a", "b", "c"}
    assert depends_on(torch.zeros(()), leaves) == set()


def levels(**hypergradients: dict[str, dict[str, str]]) -> dict[str, Level]:
    common = {"parameters": ["*"], "split": "s", "optimizer": {"name": "sgd", "lr": 1}}
    return {
        name: convert({**common, "loss": f"loss-{name}", "hypergradient": below}, Level, name)
        for name, below in hypergradients.items()
    }


OWNED = {"w": ["w1", "w2", "w3"], "v": ["v"], "a": ["a"]}


@pytest.mark.parametrize(
    "seen",
    [
        {"w": {"w1"}, "v": {"v"}, "a": {"a", "w1", "v"}},
        {"w": {"w1"}, "v": {"v", "w2"}, "a": {"a", "v"}},  # w reaches the upper loss through v
        {"w": {"w1", "v", "a"}, "v": {"v"}, "a": {"a", "w3", "v"}},
    ],
)
def test_levels_that_reach_the_upper_loss(seen: dict[str, set[str]]) -> None:
    require_reached(levels(w={}, v={}, a={}), OWNED, seen)


@pytest.mark.parametrize(
    ("seen", "message"),
    [
        (
            {"w": {"w1"}, "v": {"v"}, "a": {"a", "w1"}},
            r"^level 'v' never reaches the upper loss: its parameters \(v\) have no part in 'loss-a' of level 'a'$",
        ),
        (
            {"w": {"w1"}, "v": {"v"}, "a": {"a", "v"}},
            r"^level 'w' never .* \(w1, w2 and 1 more\) have no part in 'loss-v' of level 'v', 'loss-a' of level 'a'$",
        ),
        (
            # v sees w, but nothing sees v
            {"w": {"w1"}, "v": {"v", "w1"}, "a": {"a"}},
            "level 'v' never reaches",
        ),
        (
            {"w": {"v"}, "v": {"v"}, "a": {"a", "v", "w1"}},
            r"^level 'w': the loss 'loss-w' depends on none of its parameters \(w1, w2 and 1 more\)$",
        ),
        (
            {"w": {"w1", "a"}, "v": {"v"}, "a": {"w1", "v"}},
            r"^level 'a': the loss 'loss-a' depends on none of its parameters \(a\)$",
        ),
    ],
)
def test_levels_without_influence(seen: dict[str, set[str]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        require_reached(levels(w={}, v={}, a={"w": {"name": "first_order"}}), OWNED, seen)


def test_an_answering_level_makes_a_parameter_reach_its_loss() -> None:
    seen = {"w": {"w1", "a"}, "v": {"v"}, "a": {"w1", "v"}}
    require_reached(levels(w={}, v={}, a={"w": {"name": "neumann"}}), OWNED, seen)
