"""Uniform paths: how often each candidate is drawn, and updated if paths are fair."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor, nn

from nas.errors import ConfigError
from nas.files import convert
from nas.multilevel.level import Level
from nas.multilevel.multilevel import Multilevel
from nas.relaxation.sampling import draws
from nas.relaxation.uniform_path import UniformPath
from nas.space.chooser import Chooser
from nas.space.definition import SearchSpace
from nas.supernet import Supernet

LOGITS = torch.tensor([0.0, 5.0, -5.0])
X = torch.ones(1, 2, dtype=torch.double)


class Factor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


class Sum(nn.Module):
    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([part(x) for part in self.parts]).sum(0)


def space(choose: Chooser, /, *, more: bool = False) -> nn.Module:
    names: dict[str, Any] = dict.fromkeys("xyz", Factor)
    others = names | {"w": Factor} if more else names
    return Sum(choose("a", names), choose("b", others), choose("a", names), Factor())


def nested(choose: Chooser, /) -> nn.Module:
    return choose("outer", {"x": lambda: choose("inner", {"u": Factor, "v": Factor}), "y": Factor})


def engine(relaxation: Any, steps: int = 7, loss: Any = lambda net, x: net(x).sum(), **lower: Any) -> Multilevel:
    """Plain descent of operation weights."""
    fields = {"parameters": ["network.*"], "loss": "sum", "split": "s", "optimizer": {"name": "sgd", "lr": 0.1}}
    supernet = Supernet(SearchSpace("s", space), relaxation=relaxation).double()
    return Multilevel(supernet, {"lower": convert(fields | lower, Level, "l")}, {"sum": loss}, lambda *_: X, steps)


def test_paths_are_uniform_whatever_the_logits_are() -> None:
    counts = [0] * 3
    for step in range(3000):
        ((_, logits, draw),) = draws({"a": LOGITS}, {"a": "xyz"}, seed=1, step=step, progress=0.0, random=True)
        found = UniformPath().draw(logits, draw)
        assert found.weights.tolist() == [float(i == found.choice) for i in range(3)]
        counts[found.choice] += 1
    assert chisquare(counts).pvalue > 1e-3
    ((_, logits, draw),) = draws({"a": LOGITS}, {"a": "xyz"}, seed=1, step=0, progress=0.0, random=False)
    assert UniformPath().draw(logits, draw).choice == 1
    assert UniformPath()(LOGITS).tolist() == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_fair_paths_update_every_candidate_equally_often(accumulate: int) -> None:
    """The gradient of a factor is the sum over passes; plain SGD counts its updates in its value."""
    levels = engine({"name": "uniform_path", "fair": True}, accumulate=accumulate)
    supernet: Any = levels.model
    assert supernet.passes == 3
    for k in range(7):
        levels.step(k)
        for name, factor in supernet.network.named_parameters():
            updates = (1 - factor.item()) / (0.1 * X.sum().item())
            expected = (k + 1) * (3 if name == "parts.3.factor" else 1)  # what is not a candidate is in every pass
            assert updates == pytest.approx(expected, abs=1e-9), name


def test_the_order_of_fair_paths_is_random_by_decision_and_step() -> None:
    supernet = Supernet(SearchSpace("s", space), relaxation={"name": "uniform_path", "fair": True})
    orders: Counter[tuple[int, ...]] = Counter()
    equal = 0
    for step in range(600):
        supernet.on_progress(step, 600)
        paths: dict[str, list[int]] = {"a": [], "b": []}
        for turn in range(3):
            with supernet.in_pass(turn):
                for label, weights in supernet._drawn().items():
                    paths[label].append(weights.choice)  # type: ignore[union-attr]
        orders[tuple(paths["a"])] += 1
        equal += paths["a"] == paths["b"]
    assert len(orders) == 6
    assert chisquare(list(orders.values())).pvalue > 1e-3
    assert 60 < equal < 140  # one in six


def test_the_loss_of_a_fair_step_is_the_sum_over_its_paths() -> None:
    levels = engine({"name": "uniform_path", "fair": True}, loss=lambda net, x: net(x).square().sum())
    supernet: Any = levels.model
    loss, found = levels.gradient("lower", 3)
    total, passes = 0.0, {name: torch.zeros_like(p) for name, p in supernet.named_parameters()}
    for turn in range(3):
        with supernet.in_pass(turn):
            value = supernet(X).square().sum()
        total += value.item()
        gradients = torch.autograd.grad(value, list(supernet.network.parameters()), allow_unused=True)
        for (name, _), g in zip(supernet.network.named_parameters(), gradients, strict=True):
            passes[f"network.{name}"] += 0 if g is None else g
    assert loss.item() == pytest.approx(total)
    for name, gradient in found.items():
        assert torch.allclose(gradient, passes[name]), name


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [(space, {"more": True}, "3 of 'a' and 4 of 'b'"), (nested, {}, "got 'inner'")],
)
def test_fair_paths_need_equal_counts(make: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Supernet(SearchSpace("s", make), relaxation={"name": "uniform_path", "fair": True}, **options)
    assert Supernet(SearchSpace("s", make), relaxation="uniform_path", **options).passes == 1


def test_a_space_without_decisions_takes_one_pass() -> None:
    assert UniformPath(fair=True).passes({}) == UniformPath().passes({}) == 1


def test_a_level_of_logits_is_refused() -> None:
    fields = {"loss": "sum", "split": "s", "optimizer": {"name": "sgd", "lr": 0.1}}
    levels = {
        name: convert({"parameters": [p], **fields}, Level, name)
        for name, p in (("low", "network.*"), ("up", "arch.*"))
    }
    supernet = Supernet(SearchSpace("s", space), relaxation="uniform_path").double()
    with pytest.raises(
        ConfigError, match=r"level 'up' needs logits that get a gradient, got relaxation 'uniform_path'"
    ):
        Multilevel(supernet, levels, {"sum": lambda net, x: net(x).sum()}, lambda *_: X, 3)
