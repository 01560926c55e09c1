"""RUAS' two coupled searches (Liu et al., CVPR 2021) as a configuration: two modules, one cooperative upper loss.

An enhancer feeds a denoiser; each has operation weights and arch parameters of its own. The enhancer's arch parameters
descend the sum of both tasks' losses, the denoiser's their own alone.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.files import convert, parse_yaml
from nas.multilevel.level import Level
from nas.multilevel.multilevel import Multilevel


class Module(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.arch = nn.Parameter(torch.tensor([0.2, -0.3]))
        self.weights = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.arch.softmax(0)
        hidden: Tensor = self.weights(x)
        return first * hidden.tanh() + second * hidden.sin()


class Coupled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enhancer, self.denoiser = Module(), Module()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        enhanced = self.enhancer(x)
        return enhanced, self.denoiser(enhanced)


def enhancing(net: Any, batch: Tensor) -> Tensor:
    loss: Tensor = (net(batch)[0] - batch.abs()).square().mean()
    return loss


def denoising(net: Any, batch: Tensor) -> Tensor:
    loss: Tensor = (net(batch)[1] - batch.cos()).square().mean()
    return loss


def cooperative(net: Any, batch: Tensor) -> Tensor:
    return enhancing(net, batch) + denoising(net, batch)


LOSSES = {"enhancing": enhancing, "denoising": denoising, "cooperative": cooperative}
CONFIG = """
enhancer_weights:
  {parameters: [enhancer.weights.*], loss: enhancing, split: train, optimizer: {name: sgd, lr: 0.1, momentum: 0.9}}
denoiser_weights:
  {parameters: [denoiser.weights.*], loss: denoising, split: train, optimizer: {name: adam, lr: 0.05}}
denoiser_arch:
  parameters: [denoiser.arch]
  loss: denoising
  split: val
  optimizer: {name: adam, lr: 0.02}
  hypergradient: {denoiser_weights: {name: unrolled}}
  period: 10
enhancer_arch:
  parameters: [enhancer.arch]
  loss: cooperative
  split: val
  optimizer: {name: adam, lr: 0.02}
  hypergradient: {enhancer_weights: {name: unrolled}, denoiser_weights: {name: unrolled}}
"""


def batch(split: str, index: int) -> Tensor:
    drawn: Tensor = torch.randn(
        8, 3, generator=torch.Generator().manual_seed(2 * index + len(split) % 2), dtype=torch.float64
    )
    return drawn


@pytest.fixture
def levels() -> Multilevel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Coupled().double()
    configured = convert(parse_yaml(CONFIG, "test"), dict[str, Level], "test")
    return Multilevel(net, configured, LOSSES, batch, 300)


def test_each_search_moves_its_own_parameters_at_its_own_pace(levels: Multilevel) -> None:
    for k in range(10):
        before = copy.deepcopy(levels.model.state_dict())
        levels.step(k)
        changed = [name for name, p in levels.model.named_parameters() if not torch.equal(p, before[name])]
        moved = {".".join(name.split(".")[:2]) for name in changed}
        always = {"enhancer.weights", "denoiser.weights", "enhancer.arch"}
        assert moved == (always | {"denoiser.arch"} if k == 9 else always)


@pytest.mark.parametrize(
    ("name", "arch", "answering"),
    [
        ("denoiser_arch", "denoiser.arch", ["denoiser_weights"]),
        ("enhancer_arch", "enhancer.arch", ["enhancer_weights", "denoiser_weights"]),
    ],
)
def test_hypergradients_equal_central_differences_of_both_searches(
    levels: Multilevel, name: str, arch: str, answering: list[str]
) -> None:
    for k in range(3):
        levels.step(k)
    found = levels.gradient(name, 3)[1][arch]

    def after(shift: Tensor) -> Tensor:
        net, optimizers = copy.deepcopy((levels.model, levels.optimizers))
        with torch.no_grad():
            net.get_parameter(arch).add_(shift)
        for below in answering:
            own = [net.get_parameter(p) for p in levels.owned[below]]
            loss = LOSSES[levels.levels[below].loss](net, batch("train", 4))  # the next one
            for p, gradient in zip(own, torch.autograd.grad(loss, own), strict=True):
                p.grad = gradient
            optimizers[below].step()
        return LOSSES[levels.levels[name].loss](net, batch("val", 3)).detach()

    h = 1e-5
    units = torch.eye(2, dtype=torch.float64)
    expected = torch.stack([(after(h * unit) - after(-h * unit)) / (2 * h) for unit in units])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-9)


def test_the_cooperative_loss_falls(levels: Multilevel) -> None:
    before = cooperative(levels.model, batch("val", 999)).item()
    for k in range(levels.steps):
        levels.step(k)
    assert cooperative(levels.model, batch("val", 999)).item() < 0.7 * before
