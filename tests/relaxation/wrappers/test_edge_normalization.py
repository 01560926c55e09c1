"""Edge normalization: its factors, their gradient, and the in-edges that a genotype keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.errors import ConfigError
from nas.space.cell import Cell
from nas.space.chooser import Chooser
from nas.space.definition import SearchSpace
from nas.space.primitives import NAS_BENCH_201
from nas.supernet import Supernet

X = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(0)).double()
NAMES = list(NAS_BENCH_201)


def cell(choose: Chooser, /, *, fixed: bool = False) -> nn.Module:
    """Two inputs, of which the second is the first one times 2, and one node that keeps one of its two in-edges."""
    operations = {"only": lambda: nn.Identity()} if fixed else NAS_BENCH_201.bind(4)

    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = Cell(choose, "cell", operations, nodes=1, inputs=2, keep=1, output="last")

        def forward(self, x: Tensor) -> Tensor:
            return self.cell(x, 2 * x)

    return Doubled()


def supernet(b: list[float], **how: Any) -> Supernet:
    net = Supernet(SearchSpace("doubled", cell), wrappers=["edge_normalization"], **how).double()
    with torch.no_grad():
        net.arch["cell/2"].copy_(torch.tensor(b))
    return net


@pytest.mark.parametrize("evaluation", ["plain", "planned"])
def test_edges_are_multiplied_by_the_softmax_of_b(evaluation: str) -> None:
    net = supernet([0.3, -0.9], fixed=True, evaluation=evaluation)
    share = torch.tensor([0.3, -0.9]).double().softmax(0)
    assert torch.allclose(net(X), (share[0] + 2 * share[1]) * X, atol=1e-13)


@pytest.mark.parametrize("evaluation", ["plain", "planned"])
@pytest.mark.parametrize("relaxation", ["softmax", "gumbel", "binary_gates"])
def test_b_gets_its_gradient(relaxation: str, evaluation: str) -> None:
    net = supernet([0.3, -0.9], relaxation=relaxation, evaluation=evaluation)
    net.on_progress(1, 3)
    b = net.arch["cell/2"]
    (found,) = torch.autograd.grad(net(X).square().sum(), b)
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            b[0] += sign * 1e-6
        values.append(net(X).square().sum().item())  # with a graph, as binary gates draw two candidates then
        with torch.no_grad():
            b[0] -= sign * 1e-6
    assert found[0].item() == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-6)
    assert found.sum().item() == pytest.approx(0, abs=1e-9)
    assert abs(found[0]) > 1e-3


def test_in_edges_rank_by_their_factor_times_the_largest_weight_besides_none() -> None:
    net = supernet([0.0, 0.0])
    first, second = net.arch["cell/2<-0"], net.arch["cell/2<-1"]
    with torch.no_grad():
        first[NAMES.index("nor_conv_3x3")] = 1.0
        second[NAMES.index("none")] = 4.0  # which does not count
    assert net.derive().choices["cell/2"] == (0,)
    best = [w[1:].max().item() for w in (first.softmax(0), second.softmax(0))]
    gap = torch.tensor(best[0] / best[1]).log()
    for b, kept in ((gap - 0.01, (0,)), (gap + 0.01, (1,))):
        with torch.no_grad():
            net.arch["cell/2"].copy_(torch.tensor([0.0, b]))
        genotype = net.derive()
        assert genotype.choices["cell/2"] == kept
        assert genotype.provenance.margins["cell/2"] < 0.01


def test_a_fixed_supernet_has_no_factors() -> None:
    net = supernet([0.3, -0.9], evaluation="plain").eval()
    genotype = net.derive()
    with net.fixed(genotype):
        assert torch.equal(net(X), net.derived(genotype)(X))


def test_b_is_no_mixing_weight() -> None:
    net = supernet([0.3, -0.9])
    assert list(net.arch) == ["cell/2", "cell/2<-0", "cell/2<-1"]
    assert list(net.mixing_weights()) == list(net.candidate_logits()) == ["cell/2<-0", "cell/2<-1"]
    assert net.edge_weights()["cell/2"].sum().item() == pytest.approx(1)
    assert any(logits is net.arch["cell/2"] for logits in net.logits())


def test_what_it_cannot_be_combined_with() -> None:
    def edge(choose: Chooser, /) -> nn.Module:
        return choose("edge", NAS_BENCH_201.bind(4))

    with pytest.raises(ConfigError, match="'edge_normalization': the space must have nodes"):
        Supernet(SearchSpace("edge", edge), wrappers=["edge_normalization"])
    with pytest.raises(ConfigError, match="'edge_normalization' needs logits that get a gradient"):
        supernet([0.0, 0.0], relaxation="uniform_path")
