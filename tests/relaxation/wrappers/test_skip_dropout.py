"""Dropout on skip connections: its rate over a search, its noise, and what it leaves alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.errors import ConfigError
from nas.relaxation.wrappers.skip_dropout import SkipDropout
from nas.space.chooser import Chooser
from nas.space.definition import SearchSpace
from nas.space.primitives import NAS_BENCH_201
from nas.space.wrapper import Moment
from nas.supernet import Supernet

X = torch.ones(50, 4, 10, 10).double()


def chain(choose: Chooser, /, *, stride: int = 1, other: bool = False) -> nn.Module:
    names = ("skip_connect", "avg_pool_3x3") if other else ("skip_connect",)
    edges = (choose("edge", NAS_BENCH_201.only(*names).bind(4, stride=stride)) for _ in range(2))
    return nn.ModuleList(edges)


class Pair(nn.Module):
    def __init__(self, choose: Chooser, **options: Any) -> None:
        super().__init__()
        self.edges = chain(choose, **options)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([edge(x) for edge in self.edges])


def pair(choose: Chooser, /, *, stride: int = 1, other: bool = False) -> nn.Module:
    return Pair(choose, stride=stride, other=other)


def supernet(rate: float = 0.4, step: int = 0, seed: int = 0, **options: Any) -> Supernet:
    wrappers = [{"name": "skip_dropout", "rate": rate, "epochs": 5, "warmup": 2}]
    net = Supernet(SearchSpace("pair", pair), wrappers=wrappers, seed=seed, **options).double()
    net.on_progress(step, 10)
    return net


RATES = [0.4 * 4 / 5] * 2 + [0.4 * 3 / 5] * 2 + [0.4] * 2 + [0.4 * math.exp(-0.2)] * 2 + [0.4 * math.exp(-0.4)] * 2


@pytest.mark.parametrize(("step", "rate"), list(enumerate(RATES)))
def test_the_rate_is_a_function_of_the_step(step: int, rate: float) -> None:
    net = supernet(step=step)
    (wrapper,) = net.wrappers
    assert isinstance(wrapper, SkipDropout)
    assert wrapper.probability(net._now()) == pytest.approx(rate, rel=1e-12)
    out = net(X)
    assert set(out.unique().tolist()) == {0.0, 1 / (1 - rate)}
    deviation = math.sqrt(rate * (1 - rate) / out.numel())
    assert abs((out == 0).double().mean() - rate) < 4 * deviation


def test_noise_depends_on_seed_place_and_step_alone() -> None:
    first = supernet()(X)
    assert torch.equal(first, supernet()(X))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, supernet(step=1)(X))
    assert not torch.equal(first, supernet(seed=1)(X))
    net = supernet(other=True)
    assert torch.equal(net(X), net(X))


def test_what_it_leaves_alone() -> None:
    assert torch.equal(supernet().eval()(X)[0], X)
    reducing, plain = supernet(stride=2), Supernet(SearchSpace("pair", pair), stride=2).double()
    assert torch.equal(reducing(X), plain(X))
    net = supernet(other=True)
    mixed = net(X)
    assert mixed.unique().numel() == 2
    assert mixed.min().item() == pytest.approx(0.5)  # the average of ones, times its weight
    genotype = net.derive()
    with net.fixed(genotype):
        assert torch.equal(net(X)[0], X)
    assert net.derived(genotype).state_dict().keys() <= net.network.state_dict().keys()


def test_the_defaults_are_those_of_the_authors_and_the_last_part_has_no_end() -> None:
    """25 epochs, of which 10 without steps of the logits (chenxin061/pdarts, train_search.py)."""
    wrapper = SkipDropout(0.5)
    assert (wrapper.epochs, wrapper.warmup, wrapper.decay) == (25, 10, 0.2)
    ends = [wrapper.probability(Moment(0, step, 50, 1.0, 0, False, True, False)) for step in (49, 50, 60)]
    assert ends == pytest.approx([0.5 * math.exp(-0.2 * 14)] * 3)


def test_an_auxiliary_skip_is_not_dropped() -> None:
    both = ["auxiliary_skip", {"name": "skip_dropout", "rate": 0.4, "epochs": 5, "warmup": 2}]
    for wrappers in (both, both[::-1]):
        net = Supernet(SearchSpace("pair", pair), wrappers=wrappers).double()
        net.on_progress(0, 10)
        assert net(X).unique().tolist() == pytest.approx([1.0, 1 + 1 / 0.68])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rate": 1.0}, r"wrappers\[0\].rate must be below 1, got 1"),
        ({"rate": -0.1}, r"rate must be at least 0, got -0.1"),
        ({"rate": 0.1, "warmup": 30}, r"warmup must be at most epochs=25, got 30"),
        ({"rate": 0.1, "candidate": "skip"}, r"'skip_dropout': .*'skip'.*did you mean 'skip_connect'"),
        ({}, r"needs the argument 'rate'"),
    ],
)
def test_mistakes(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Supernet(SearchSpace("pair", pair), wrappers=[{"name": "skip_dropout", **arguments}])
