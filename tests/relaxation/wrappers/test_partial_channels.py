"""Partial channels: against the formula of the authors' code, and what cannot have them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.errors import ConfigError, SpaceError
from nas.space.cell import Cell
from nas.space.chooser import Chooser
from nas.space.definition import SearchSpace
from nas.space.mixed import MixedOperation
from nas.space.operations import OperationSet
from nas.space.partial import PartialOperation, joined
from nas.space.primitives import DARTS, NAS_BENCH_201
from nas.supernet import Supernet

X = torch.randn(2, 8, 6, 7, generator=torch.Generator().manual_seed(0)).double()


def one_edge(choose: Chooser, /, *, stride: int = 1, operations: OperationSet = DARTS, channels: int = 8) -> nn.Module:
    return Cell(choose, "cell", operations.bind(channels, stride=stride), nodes=1, inputs=1, output="last")


def supernet(k: int = 4, *others: Any, **options: Any) -> Supernet:
    wrappers = [{"name": "partial_channels", "k": k}, *others]
    net = Supernet(SearchSpace("one", one_edge), wrappers=wrappers, **options).double()
    with torch.no_grad():
        net.arch["cell/1<-0"].copy_(torch.linspace(-1, 1, len(net.arch["cell/1<-0"])))
    return net


def by_hand(net: Supernet, x: Tensor, k: int, beta: float = 0.0) -> Tensor:
    """As `MixedOp.forward` of yuhuixu1993/PC-DARTS: channel i of group g becomes channel `i * k + g`."""
    operation = net.network.get_submodule("nodes.0.0")
    share = x.shape[1] // k
    names = list(net.decisions["cell/1<-0"].candidates)
    weights = net.mixing_weights()["cell/1<-0"]
    terms = [w * operation.get_submodule(name)(x[:, :share]) for w, name in zip(weights, names, strict=True)]
    mixed = sum(terms, start=beta * x[:, :share] if beta else torch.zeros(()).double())
    passed = x[:, share:]
    if mixed.shape[2:] != x.shape[2:]:
        passed = F.max_pool2d(passed, 2, 2, ceil_mode=True)
    before = torch.cat([mixed, passed], 1)
    return torch.stack([before[:, g * share + i] for i in range(share) for g in range(k)], 1)


@pytest.mark.parametrize("evaluation", ["plain", "planned"])
@pytest.mark.parametrize(("k", "stride"), [(4, 1), (2, 1), (8, 1), (2, 2)])
def test_the_first_channels_are_computed_and_all_are_shuffled(k: int, stride: int, evaluation: str) -> None:
    net = supernet(k, stride=stride, evaluation=evaluation)
    operations = [m for m in net.modules() if isinstance(m, MixedOperation)]
    assert [type(m) for m in operations] == [PartialOperation]
    assert torch.allclose(net(X), by_hand(net, X, k), atol=1e-12)


def test_weights_have_a_kth_of_the_channels() -> None:
    shapes = {n: p.shape for n, p in supernet(4).network.named_parameters() if n.endswith("sep_conv_3x3.2.weight")}
    assert [tuple(shape) for shape in shapes.values()] == [(2, 2, 1, 1)]


def test_an_auxiliary_skip_is_added_once() -> None:
    for order in (1, -1):
        wrappers = [{"name": "partial_channels", "k": 4}, "auxiliary_skip"][::order]
        net = Supernet(SearchSpace("one", one_edge), wrappers=wrappers).double()
        net.on_progress(1, 4)
        assert torch.allclose(net(X), by_hand(net, X, 4, beta=2 / 3), atol=1e-12)


def two_cells(choose: Chooser, /) -> nn.Module:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = Cell(choose, "cell", NAS_BENCH_201.bind(8, stride=1), nodes=2)
            self.reduce = Cell(choose, "reduce", lambda s, n: NAS_BENCH_201.bind(8, stride=2 if s < 2 else 1), nodes=2)

        def forward(self, x: Tensor) -> Tensor:
            return self.reduce(*self.cell(x, 2 * x).chunk(2, 1))

    return Twice()


EVERY = ("edge_normalization", "auxiliary_skip", {"name": "skip_dropout", "rate": 0.3})


@pytest.mark.parametrize("others", [(), EVERY], ids=["alone", "with others"])
@pytest.mark.parametrize("relaxation", ["softmax", "gumbel", "binary_gates"])
def test_planned_and_checkpointed_cells_compute_the_same(relaxation: str, others: Any) -> None:
    found: list[list[Tensor]] = []
    for evaluation, memory in (("plain", "keep"), ("planned", "keep"), ("planned", "checkpoint")):
        wrappers = [{"name": "partial_channels", "k": 2}, *others]
        how: Any = {"relaxation": relaxation, "evaluation": evaluation, "memory": memory}
        net = Supernet(SearchSpace("twice", two_cells), wrappers=wrappers, **how).double()
        net.on_progress(1, 4)
        with torch.no_grad():
            for logits in net.logits():
                logits.copy_(torch.linspace(-1, 1, len(logits)))
        output = net(X)
        gradients = torch.autograd.grad(
            output.square().mean(), list(net.parameters()), allow_unused=True, materialize_grads=True
        )
        found.append([output, *gradients, *(b.double() for b in net.buffers())])
    for other in found[1:]:
        for expected, value in zip(found[0], other, strict=True):
            assert torch.allclose(expected, value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("last", [False, True])
def test_the_memory_format_changes_no_value(last: bool) -> None:
    x = torch.arange(2 * 8 * 3 * 3.0).view(2, 8, 3, 3)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    found = joined(x[:, :2], x[:, 2:], 4, "edge")
    assert [int(c) for c in found[0, :, 0, 0] / 9] == [0, 2, 4, 6, 1, 3, 5, 7]


def test_derived_networks_inherit_nothing() -> None:
    net = supernet()
    with pytest.raises(ConfigError, match=r"wrapper 'partial_channels': .* nothing can be inherited"):
        net.derived(net.derive())
    assert net.derive().build()(X.float()).shape == X.shape


def test_refused_spaces() -> None:
    with pytest.raises(ConfigError, match=r"k must divide the channels of .*'none' of 'cell/1<-0', got k=3 for 8"):
        supernet(3)
    with pytest.raises(ConfigError, match=r"k must be at least 2, got 1"):
        supernet(1)

    def chosen(choose: Chooser, /) -> nn.Module:
        return choose("edge", NAS_BENCH_201.bind(8))

    def unbound(choose: Chooser, /) -> nn.Module:
        return Cell(choose, "cell", {"mine": lambda: nn.Conv2d(8, 8, 1)}, nodes=1, inputs=1)

    def widening(choose: Chooser, /) -> nn.Module:
        operations = OperationSet({"wide": lambda channels: nn.Conv2d(channels, channels + 1, 1)})
        return Cell(choose, "cell", operations.bind(8), nodes=1, inputs=1)

    wrappers = ["partial_channels"]
    with pytest.raises(ConfigError, match="the space must have decisions on the in-edges of a cell"):
        Supernet(SearchSpace("chosen", chosen), wrappers=wrappers)
    with pytest.raises(ConfigError, match=r"'mine' of 'cell/1<-0' must be bound .* OperationSet.bind"):
        Supernet(SearchSpace("unbound", unbound), wrappers=wrappers)
    with pytest.raises(SpaceError, match=r"'cell/1<-0' must return \(2, 2, 6, 7\) on partial channels, got \(2, 3,"):
        Supernet(SearchSpace("widening", widening), wrappers=wrappers).double()(X)


def test_decisions_elsewhere_keep_their_channels() -> None:
    def both(choose: Chooser, /) -> nn.Module:
        cell = Cell(choose, "cell", NAS_BENCH_201.bind(8), nodes=1, inputs=1, output="last")
        return nn.Sequential(cell, choose("last", NAS_BENCH_201.bind(8)))

    net = Supernet(SearchSpace("both", both), wrappers=["partial_channels"])
    assert type(net.network[1]) is MixedOperation
    assert net.network[1].get_submodule("nor_conv_1x1.1").weight.shape[0] == 8
