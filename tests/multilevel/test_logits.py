"""What moves logits: a course that does not depend on the loss's scale, and the parts of their gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.cost.space_cost import costs
from nas.errors import ConfigError
from nas.files import convert
from nas.multilevel.level import Level
from nas.multilevel.multilevel import Multilevel
from nas.run.config import load_config
from nas.run.config_files import shipped_configs
from nas.run.hypergradient_comparison import prepare
from nas.space.chooser import Chooser
from nas.space.definition import SearchSpace
from nas.supernet import Supernet


def small(choose: Chooser, /) -> nn.Module:
    """Two decisions: (batch, 4) to (batch, 2)."""
    first = choose("first", {"linear": lambda: nn.Linear(4, 4), "skip": nn.Identity, "tanh": nn.Tanh})
    second = choose("second", {"linear": lambda: nn.Linear(4, 4), "skip": nn.Identity})
    return nn.Sequential(first, nn.Softplus(), second, nn.Linear(4, 2))


def batch(split: str, index: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(10 * index + len(split))
    x = torch.randn(8, 4, generator=generator, dtype=torch.float64)
    return x, torch.randint(2, (8,), generator=generator)


def cross_entropy(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(net(batch[0]), batch[1])


ADAM = {"name": "adam", "lr": 0.05, "betas": [0.5, 0.999]}
TERMS = [{"name": "entropy", "weight": 0.1}, {"name": "expected_cost", "weight": 0.02}]


def built(loss: Callable[..., Tensor] = cross_entropy, **upper: Any) -> Multilevel:
    net = Supernet(SearchSpace("small", small)).double()
    with torch.no_grad():
        net.arch["first"].copy_(torch.tensor([0.3, -0.2, 0.1]))
    lower = {"parameters": ["network.*"], "loss": "lower", "split": "train", "optimizer": {"name": "sgd", "lr": 0.1}}
    above = {"parameters": ["arch.*"], "loss": "upper", "split": "val", "optimizer": ADAM, **upper}
    levels = {name: convert(fields, Level, name) for name, fields in (("lower", lower), ("upper", above))}
    losses = {"lower": cross_entropy, "upper": loss}
    return Multilevel(net, levels, losses, batch, 12, {"cost": lambda: costs(net.space.describe())})


def course(levels: Multilevel) -> Tensor:
    """The logits after each step."""
    found = []
    for k in range(levels.steps):
        levels.step(k)
        found.append(torch.cat([p.detach().clone() for p in levels.model.arch.values()]))  # type: ignore[union-attr,operator]
    return torch.stack(found)


def scaled(net: nn.Module, batch: Any) -> Tensor:
    return 100 * cross_entropy(net, batch)


@pytest.mark.parametrize("method", ["first_order", "unrolled", "gauss_newton"])
def test_the_course_does_not_depend_on_the_scale_of_the_loss(method: str) -> None:
    fields = {"regularizers": TERMS, "hypergradient": {"lower": method}}
    one, hundred = (course(built(loss, scale_free=True, **fields)) for loss in (cross_entropy, scaled))
    torch.testing.assert_close(hundred, one, rtol=1e-9, atol=1e-9)
    assert one[-1].std() > 0.1  # it moves
    plain = [course(built(loss, **fields)) for loss in (cross_entropy, scaled)]
    assert not torch.allclose(*plain, atol=1e-2)  # the regularizers weigh less


STATED = {"robust-darts-s2", "ruas"}  # published searches, as their authors ran them
OWN = sorted({name for name, path in shipped_configs().items() if not {"toys", "recipes"} & {*path.parts}} - STATED)
"""Configurations of this project: neither toys nor the recipes of papers."""


@pytest.mark.parametrize("config", OWN)
def test_in_shipped_configurations_the_loss_decides(config: str) -> None:
    (upper,) = (each for each in load_config(config).search.levels.values() if "arch.*" in each.parameters)
    assert upper.scale_free
    assert upper.optimizer["weight_decay"] == 0
    assert upper.optimizer["name"] == "adam"


def test_a_shipped_search_takes_the_same_course_for_a_loss_times_a_hundred() -> None:
    config = load_config("digits", ["options.channels=4", "options.nodes=2", "task.batch=8", "search.steps=8"])
    found = []
    for factor in (1, 100):
        levels = prepare(config, double=True)
        task = levels._evaluation._losses
        task["upper"] = lambda net, batch, loss=task["upper"], factor=factor: factor * loss(net, batch)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            found.append(course(levels))
    torch.testing.assert_close(found[1], found[0], rtol=1e-6, atol=1e-9)
    assert found[0][-1].abs().max() > 0.05


def test_the_gradient_is_that_of_the_logarithm_plus_regularizers() -> None:
    fields = {"regularizers": TERMS, "hypergradient": {"lower": "unrolled"}}
    plain = built(hypergradient={"lower": "unrolled"}).gradient("upper", 0)
    whole = built(scale_free=True, **fields).gradient("upper", 0)
    terms = built(lambda net, batch: 0 * cross_entropy(net, batch), regularizers=TERMS).gradient("upper", 0)
    assert whole[0] == plain[0]  # the record is the loss itself
    for name, gradient in whole[1].items():
        torch.testing.assert_close(gradient, plain[1][name] / plain[0] + terms[1][name])


def test_a_loss_that_is_not_positive_has_no_logarithm() -> None:
    with pytest.raises(ConfigError, match=r"'upper'.*above 0.*scale_free.*got -"):
        built(lambda net, batch: -cross_entropy(net, batch), scale_free=True)


# --- the parts of the gradient ---


@pytest.mark.parametrize("decoupled", [False, True])
def test_parts_are_those_of_the_loss_of_regularizers_and_of_decay(decoupled: bool) -> None:
    optimizer = {**ADAM, "weight_decay": 0.3, "decoupled": decoupled}
    levels = built(optimizer=optimizer, regularizers=TERMS, hypergradient={"lower": "unrolled"}, clip=0.01)
    plain, clean = built(hypergradient={"lower": "unrolled"}), built()
    before = {name: p.detach().clone() for name, p in levels.model.named_parameters() if name.startswith("arch.")}
    moved = levels.step(0)["upper"]
    for each in (plain, clean):
        each.model.load_state_dict({**levels.model.state_dict(), **before})
    scale = 0.01 / (moved.gradient + 1e-6)
    assert scale < 1
    assert set(moved.parts) == {"loss", "response", "decay", "entropy", "expected_cost"}
    _, loss = plain.gradient("upper", 0)
    cross_entropy(clean.model, batch("train", 1)).backward()  # the virtual step
    for p in clean.model.network.parameters():  # type: ignore[union-attr]
        p.data -= 0.1 * p.grad
    _, direct = clean.gradient("upper", 0)
    for name, value in before.items():
        torch.testing.assert_close(moved.parts["loss"][name], scale * loss[name])
        torch.testing.assert_close(moved.parts["response"][name], scale * (loss[name] - direct[name]))
        rest = sum(moved.parts[part][name] for part in ("loss", "entropy", "expected_cost"))
        coupled = rest + moved.parts["decay"][name]
        # Adam's first step, with bias correction: lr g / (|g| + eps), where decoupled decay is not in the denominator.
        denominator = (rest if decoupled else coupled).abs() + 1e-8
        torch.testing.assert_close(dict(levels.model.named_parameters())[name], value - 0.05 * coupled / denominator)
    assert moved.parts["decay"]["arch.first"].norm() > 0


def test_levels_without_arch_parameters_have_no_parts() -> None:
    assert built().step(0)["lower"].parts == {}
