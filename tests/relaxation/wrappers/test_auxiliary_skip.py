"""The auxiliary skip connection: its weight over a search, where it is added, and where it is not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.errors import ConfigError, SpaceError
from nas.space.chooser import Chooser
from nas.space.definition import SearchSpace
from nas.space.primitives import NAS_BENCH_201
from nas.supernet import Supernet

X = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0)).double()


def edge(choose: Chooser, /, *, stride: int = 1) -> nn.Module:
    return choose("edge", NAS_BENCH_201.bind(4, stride=stride))


def outputs(steps: range, wrappers: Any = ("auxiliary_skip",), **options: Any) -> list[Tensor]:
    net = Supernet(SearchSpace("edge", edge), wrappers=wrappers, **options).double()
    found = []
    for step in steps:
        net.on_progress(step, 5)
        found.append(net(X))
    return found


@pytest.mark.parametrize("relaxation", ["softmax", "sigmoid", "gumbel", "binary_gates"])
@pytest.mark.parametrize("start", [1.0, 0.5])
def test_it_adds_beta_times_the_input_which_falls_to_zero(relaxation: str, start: float) -> None:
    wrapped = outputs(range(5), [{"name": "auxiliary_skip", "beta": start}], relaxation=relaxation)
    plain = outputs(range(5), (), relaxation=relaxation)
    for step, beta in enumerate((1.0, 0.75, 0.5, 0.25, 0.0)):
        assert torch.allclose(wrapped[step] - plain[step], start * beta * X, atol=1e-13)


def test_at_stride_2_it_is_a_reduction_with_weights_of_its_own() -> None:
    net = Supernet(SearchSpace("edge", edge), wrappers=["auxiliary_skip"], stride=2).double()
    net.on_progress(1, 3)
    own = net.network.get_submodule("auxiliary_skip")
    candidate = net.network.get_submodule("skip_connect")
    assert type(own) is type(candidate)
    assert not torch.equal(own.even.weight, candidate.even.weight)
    expected = 0.5 * own(X) + sum(net.network.get_submodule(name)(X) for name in NAS_BENCH_201) / 5
    assert torch.allclose(net(X), expected, atol=1e-13)
    net(X).square().sum().backward()
    assert own.even.weight.grad.any()


def test_derived_networks_have_none() -> None:
    net = Supernet(SearchSpace("edge", edge), wrappers=["auxiliary_skip"], evaluation="plain").double()
    net.on_progress(0, 3)
    for relaxed in ("nor_conv_3x3", "skip_connect"):
        genotype = net.derive(derivation=lambda decisions, name=relaxed: {"edge": name})
        derived = net.derived(genotype).eval()
        net.eval()
        with net.fixed(genotype):
            assert torch.equal(net(X), derived(X))


def test_a_space_without_a_skip_connection_is_refused() -> None:
    def bare(choose: Chooser, /) -> nn.Module:
        return choose("edge", NAS_BENCH_201.without("skip_connect").bind(4))

    with pytest.raises(ConfigError, match=r"'auxiliary_skip': .*'skip_connect', got none, nor_conv_1x1"):
        Supernet(SearchSpace("bare", bare), wrappers=["auxiliary_skip"])
    with pytest.raises(ConfigError, match=r"'skip_conect'.*did you mean 'skip_connect'"):
        outputs(range(1), [{"name": "auxiliary_skip", "candidate": "skip_conect"}])
    with pytest.raises(ConfigError, match=r"wrapper 'auxiliary_skip' must be listed once"):
        outputs(range(1), ["auxiliary_skip", "auxiliary_skip"])


def test_a_loop_that_sets_no_step_is_warned() -> None:
    net = Supernet(SearchSpace("edge", edge), wrappers=["auxiliary_skip"]).double()
    net(X)
    with pytest.warns(UserWarning, match=r"repeats the .* schedules .* supernet\.on_progress\(step, steps\)"):
        net(X)


def test_a_candidate_of_its_name_is_refused() -> None:
    def taken(choose: Chooser, /) -> nn.Module:
        return choose("edge", {"skip_connect": nn.Identity, "auxiliary_skip": nn.Identity})

    with pytest.raises(SpaceError, match="must not have a candidate 'auxiliary_skip'"):
        Supernet(SearchSpace("taken", taken), wrappers=["auxiliary_skip"])
