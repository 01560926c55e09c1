from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.errors import ConfigError
from nas.files import convert
from nas.multilevel.dependence import depends_on, require_reached
from nas.multilevel.level import Level
from nas.multilevel.multilevel import Multilevel
from nas.space.chooser import Chooser
from nas.space.definition import search_space
from nas.supernet import Supernet


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
            r"^level 'v': the loss of a level above .* \(v\), got 'loss-a' of level 'a'\.",
        ),
        (
            {"w": {"w1"}, "v": {"v"}, "a": {"a", "v"}},
            r"^level 'w': .* \(w1, w2 and 1 more\), got 'loss-v' of level 'v', 'loss-a' of level 'a'\.",
        ),
        (
            # v sees w, but nothing sees v
            {"w": {"w1"}, "v": {"v", "w1"}, "a": {"a"}},
            "level 'v': the loss of a level above",
        ),
        (
            {"w": {"v"}, "v": {"v"}, "a": {"a", "v", "w1"}},
            r"^level 'w': its loss 'loss-w' must .* \(w1, w2 and 1 more\)",
        ),
        (
            {"w": {"w1", "a"}, "v": {"v"}, "a": {"w1", "v"}},
            r"^level 'a': its loss 'loss-a' must .* \(a\)",
        ),
    ],
)
def test_levels_without_influence(seen: dict[str, set[str]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        require_reached(levels(w={}, v={}, a={"w": {"name": "first_order"}}), OWNED, seen)


def test_an_answering_level_makes_a_parameter_reach_its_loss() -> None:
    seen = {"w": {"w1", "a"}, "v": {"v"}, "a": {"w1", "v"}}
    require_reached(levels(w={}, v={}, a={"w": {"name": "neumann"}}), OWNED, seen)


class Sum(nn.Module):
    """Two parts of which the second may be left unused."""

    def __init__(self, first: nn.Module, second: nn.Module, use: bool) -> None:
        super().__init__()
        self.first, self.second, self.use = first, second, use

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) + (self.second(x) if self.use else 0)


def pair() -> dict[str, Callable[[], nn.Module]]:
    return {"linear": lambda: nn.Linear(2, 2), "tanh": nn.Tanh}


@search_space("reached")
def reached(choose: Chooser, /, *, unused: str = "", use: bool = True) -> nn.Module:
    def nested(i: int) -> nn.Module:
        return choose(f"block/{i}", pair())

    parts: dict[str, Callable[[], nn.Module]] = {
        "": lambda: nn.Identity(),
        "operation": lambda: choose("part", pair()),
        "width": lambda: nn.Linear(2, choose.width("part", (1, 2)).channels),  # the module itself is not called
        "depth": lambda: choose.depth("part", (1, 2), lambda i: nn.Linear(2, 2)),
    }
    inside = {"some": lambda: choose("inner", pair()), "other": lambda: nn.Linear(2, 2)}
    body = nn.Sequential(nn.Linear(2, 2), choose("outer", inside), choose.depth("blocks", (1, 2), nested))
    return Sum(body, parts[unused](), use or unused == "width")


def build(lower: str = "loss", **how: Any) -> Multilevel:
    options = {name: how.pop(name) for name in ("unused", "use", "relaxation", "seed") if name in how}
    supernet = Supernet(reached, **options)
    common = {"loss": "loss", "split": "s", "optimizer": {"name": "sgd", "lr": 0.1}}
    levels = {
        "lower": convert({**common, "loss": lower, "parameters": ["network.*"]}, Level, "lower"),
        "upper": convert({**common, "parameters": ["arch.*"], **how}, Level, "upper"),
    }
    losses = {"loss": lambda model, x: model(x).square().sum(), "first": lambda model, x: model.network.first(x).sum()}
    return Multilevel(supernet, levels, losses, lambda split, index: torch.ones(1, 2), 4)


@pytest.mark.parametrize("relaxation", ["softmax", "gumbel"])
@pytest.mark.parametrize("regularizers", [[], [{"name": "entropy", "weight": 1.0}]])
@pytest.mark.parametrize("kind", ["operation", "depth", "width"])
def test_a_decision_that_no_loss_depends_on(kind: str, regularizers: list[Any], relaxation: str) -> None:
    call = {"operation": "choose", "depth": "choose.depth", "width": "choose.width"}[kind]
    with pytest.raises(ConfigError, match=rf"^decision 'part' .* the loss 'loss' of level 'upper'.*{call}\("):
        build(unused=kind, use=False, regularizers=regularizers, relaxation=relaxation)


@pytest.mark.parametrize("relaxation", ["softmax", "gumbel"])
def test_decisions_that_a_loss_depends_on(relaxation: str) -> None:
    """Under a relaxation that samples, the decisions inside candidates that were not drawn are no fault."""
    for seed in range(4):  # which draw different candidates
        build(unused="operation", relaxation=relaxation, seed=seed).step(0)


def test_a_response_makes_a_decision_reach_its_loss() -> None:
    """The upper loss depends on 'part' only through the weights that respond to it."""
    arguments = {"unused": "operation", "loss": "first"}
    with pytest.raises(ConfigError, match=r"^decision 'part' .* the loss 'first'"):
        build(**arguments)
    build(**arguments, hypergradient={"lower": {"name": "unrolled"}}).step(0)
