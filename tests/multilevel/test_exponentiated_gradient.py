"""Exponentiated gradient steps against the closed form of a linear loss, and where they are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import toy
from nas.errors import ConfigError
from nas.hypergradient.virtual_step import differentiable_step
from nas.multilevel.exponentiated_gradient import ExponentiatedGradient
from nas.run.searching import build_levels, build_supernet
from runs import assert_equal_runs, run_search
from watch import Stop, Stopped

OPTIMIZER = "search.levels.upper.optimizer={name: exponentiated_gradient, lr: 0.3}"
PRICES = torch.tensor([0.7, -1.2, 0.0, 2.0], dtype=torch.double)


def moved(logits: nn.Parameter, steps: int, **options: float) -> Tensor:
    """The mixing weights after steps on the loss `PRICES . softmax(logits)`."""
    optimizer = ExponentiatedGradient([logits], **options)
    for _ in range(steps):
        optimizer.zero_grad()
        (PRICES @ logits.softmax(0)).backward()
        optimizer.step()
    return logits.detach().softmax(0)


@pytest.mark.parametrize("start", [(0.0, 0.0, 0.0, 0.0), (1.0, -2.0, 0.5, 3.0)])
def test_a_linear_loss_has_a_closed_form(start: tuple[float, ...]) -> None:
    """After k steps `w_i` is in proportion to `w_i(0) exp(-k lr c_i)`."""
    logits = torch.tensor(start, dtype=torch.double)
    expected = logits.softmax(0) * torch.exp(-5 * 0.2 * PRICES)
    found = moved(nn.Parameter(logits), 5, lr=0.2)
    torch.testing.assert_close(found, expected / expected.sum(), rtol=1e-12, atol=0)
    assert moved(nn.Parameter(torch.zeros(4, dtype=torch.double)), 9, lr=0.2).argmax() == PRICES.argmin()


def test_it_descends_by_the_mixing_weights_and_not_by_the_logits() -> None:
    """For any loss a step is `a - lr dL/dw` up to a number that all logits share."""
    start = torch.tensor([0.4, -0.3, 1.1], dtype=torch.double)

    def loss(w: Tensor) -> Tensor:
        return w.square() @ torch.tensor([3.0, 1.0, -2.0], dtype=torch.double) + w.prod()

    weights = start.softmax(0).requires_grad_()
    (by_weight,) = torch.autograd.grad(loss(weights), weights)
    logits = nn.Parameter(start.clone())
    loss(logits.softmax(0)).backward()
    ExponentiatedGradient([logits], lr=0.5).step()
    torch.testing.assert_close(logits.detach(), (start - 0.5 * by_weight).log_softmax(0), rtol=1e-12, atol=1e-14)


def test_no_mixing_weight_falls_below_the_floor() -> None:
    """As in the authors' code the floor comes before the normalization."""
    found = moved(nn.Parameter(torch.zeros(4, dtype=torch.double)), 100, lr=1.0)
    torch.testing.assert_close(found, torch.tensor([1e-5, 1.0, 1e-5, 1e-5], dtype=torch.double) / (1 + 3e-5))
    found = moved(nn.Parameter(torch.tensor([-200.0, 0.0, 0.0, 0.0], dtype=torch.double)), 1, lr=0.1, floor=1e-3)
    assert found[0].item() == pytest.approx(1e-3, rel=2e-3), "a logit far below comes back"


def test_the_virtual_step_is_the_step() -> None:
    logits = nn.Parameter(torch.tensor([0.4, -0.3, 1.1], dtype=torch.double))
    gradient = torch.tensor([0.2, 0.1, -0.3], dtype=torch.double)
    optimizer = ExponentiatedGradient([logits], lr=0.5)
    virtual = differentiable_step(optimizer, {"a": logits})({"a": logits}, {"a": gradient})["a"]
    assert virtual.requires_grad
    logits.grad = gradient
    optimizer.step()
    assert torch.equal(virtual.detach(), logits.detach())


@pytest.mark.parametrize("stop", [4, 7])
def test_a_search_with_it_is_resumed_bit_for_bit(stop: int, tmp_path: Path) -> None:
    config = toy.config("search.steps=9", "search.epochs=3", OPTIMIZER)
    run_search(tmp_path / "whole", config)
    with pytest.raises(Stopped):
        run_search(tmp_path / "run", config, Stop(stop))
    run_search(tmp_path / "run", config, resume=True)
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")


def refused(*overrides: str) -> str:
    config = toy.config(*overrides)
    with pytest.raises(ConfigError) as caught:
        build_levels(config, build_supernet(config), config.build_task())
    return str(caught.value)


@pytest.mark.parametrize(
    "relaxation",
    ["gumbel", "gumbel_soft", "dirichlet", "sigmoid", "sparsemax", "reinmax", "{name: softmax, temperature: 2}"],
)
def test_other_mixing_weights_are_refused(relaxation: str) -> None:
    message = refused(OPTIMIZER, f"search.relaxation={relaxation}")
    assert "optimizer 'exponentiated_gradient' needs mixing weights that are the softmax of the logits" in message


def test_operation_weights_are_refused() -> None:
    message = refused("search.levels.lower.optimizer={name: exponentiated_gradient, lr: 0.1}")
    assert message.startswith("level 'lower': optimizer 'exponentiated_gradient' must be given arch parameters alone")


def test_the_rate_is_that_of_the_authors() -> None:
    """liamcli/gaea_release: an arch learning rate of 0.1."""
    logits = torch.zeros(2, dtype=torch.double, requires_grad=True)
    assert ExponentiatedGradient([logits]).param_groups[0]["lr"] == 0.1
