"""The policy `threshold`: which operations reach it, and what is left where none does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.declarations import SEPARATE, declares
from nas.errors import ConfigError
from nas.genotype.decision import NONE, Choice
from nas.space.cell import Cell
from nas.space.chooser import Chooser
from nas.space.definition import SearchSpace
from nas.space.operations import OperationSet
from nas.space.primitives import NAS_BENCH_201
from nas.supernet import Supernet


class Network(nn.Module):
    def __init__(self, outer: nn.Module, cell: nn.Module) -> None:
        super().__init__()
        self.outer, self.cell = outer, cell

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.cell(self.outer(x), x, x)
        return found


def supernet(keep: int | None, operations: OperationSet = NAS_BENCH_201, relaxation: Any = "sigmoid") -> Supernet:
    """A decision outside of nodes, and a node with three possible in-edges."""

    def network(choose: Chooser, /) -> nn.Module:
        cell = Cell(choose, "c", operations.bind(4), nodes=1, inputs=3, keep=keep, output="last")
        return Network(choose("outer", {"a": nn.Identity, "b": nn.Identity}), cell)

    return Supernet(SearchSpace("test_threshold", network), relaxation=relaxation)


def weighted(net: Supernet, weights: Mapping[str, Mapping[str, float]]) -> Supernet:
    """Set mixing weights by label and candidate; the others are 0.1."""
    for label, logits in net.arch.items():
        names = net.decisions[label].candidates
        logits.data = torch.tensor([weights.get(label, {}).get(str(name), 0.1) for name in names]).logit()
    return net


def derived(net: Supernet, **arguments: Any) -> dict[str, Choice]:
    return net.derive(derivation={"name": "threshold", **arguments}).choices


WEIGHTS = {
    "outer": {"b": 0.2},
    "c/3<-0": {"skip_connect": 0.86, NONE: 0.99},
    "c/3<-1": {"avg_pool_3x3": 0.84, "nor_conv_1x1": 0.5},
    "c/3<-2": {"nor_conv_3x3": 0.8, NONE: 0.9},
}


def test_the_strongest_in_edges_keep_their_best_operations_if_they_reach_the_threshold() -> None:
    """`outer` is not on an in-edge. The large weights of `none` count for nothing."""
    net = weighted(supernet(2), WEIGHTS)
    expected = {"outer": "b", "c/3": (0, 1), "c/3<-0": "skip_connect", "c/3<-1": NONE}
    assert derived(net) == expected
    assert derived(net, threshold=0.83) == {**expected, "c/3<-1": "avg_pool_3x3"}
    x = torch.randn(2, 4, 5, 5)
    assert torch.equal(net.derived(net.derive(derivation="threshold"))(x), x)


def test_a_node_that_keeps_all_in_edges() -> None:
    edges = {"c/3": (0, 1, 2), "c/3<-0": "skip_connect", "c/3<-1": NONE, "c/3<-2": NONE}
    assert derived(weighted(supernet(None), WEIGHTS)) == {"outer": "b", **edges}


def test_a_node_without_operations_is_zero() -> None:
    net = weighted(supernet(2), WEIGHTS)
    with pytest.warns(UserWarning, match=r"'threshold': 'c/3' .* 0\.87, .*zero"):
        genotype = net.derive(derivation={"name": "threshold", "threshold": 0.87})
    assert genotype.choices == {"outer": "b", "c/3": (0, 1), "c/3<-0": NONE, "c/3<-1": NONE}
    assert not net.derived(genotype)(torch.randn(2, 4, 5, 5)).any()


def test_what_has_no_none_stays() -> None:
    net = weighted(supernet(2, NAS_BENCH_201.without(NONE)), WEIGHTS)
    with pytest.warns(UserWarning, match=r"'c/3<-1' stays below .* 0\.85, .*'none'"):
        assert derived(net) == {"outer": "b", "c/3": (0, 1), "c/3<-0": "skip_connect", "c/3<-1": "avg_pool_3x3"}


class Own(nn.Module):
    def forward(self, logits: Tensor) -> Tensor:
        return logits.clamp(0, 1)


@declares(gives=SEPARATE)
class Separate(Own):
    pass


@pytest.mark.parametrize("relaxation", ["softmax", "gumbel", Own()])
def test_weights_that_compete_are_refused(relaxation: Any) -> None:
    with pytest.raises(ConfigError, match=r"'threshold': the relaxation must .*got \w+\. Use 'sigmoid'"):
        derived(supernet(2, relaxation=relaxation))


def test_weights_that_are_declared_separate() -> None:
    net = weighted(supernet(2, relaxation=Separate()), {})
    for label, values in WEIGHTS.items():
        net.arch[label].data = torch.tensor([values.get(str(name), 0.1) for name in net.decisions[label].candidates])
    assert derived(net)["c/3<-0"] == "skip_connect"


@pytest.mark.parametrize("threshold", [0, 1, "high"])
def test_a_threshold_that_is_no_share_is_refused(threshold: Any) -> None:
    with pytest.raises(ConfigError, match=r"derivation\.threshold"):
        derived(supernet(2), threshold=threshold)
