"""Checkpointing changes memory and time alone: results, buffers, random numbers, whatever changes in between."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from nas.genotype.file import Genotype
from nas.multilevel.level import Level
from nas.multilevel.multilevel import Multilevel
from nas.space.cell import Cell
from nas.space.chooser import Chooser
from nas.space.definition import SearchSpace
from nas.space.primitives import DARTS
from nas.supernet import Supernet

C = 4


class Counted(nn.Module):
    calls = 0

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(C, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        Counted.calls += 1
        return (self.weight * x).tanh()


def space(choose: Chooser, /) -> nn.Module:
    operations: Any = DARTS.only("max_pool_3x3", "skip_connect", "sep_conv_3x3").bind(C)
    dropout = {"drop": lambda: nn.Sequential(nn.Conv2d(C, C, 1), nn.Dropout(0.5)), "own": Counted}
    return Network(Cell(choose, "c", operations | dropout, inputs=2, nodes=2), choose("m", operations | dropout))


class Network(nn.Module):
    def __init__(self, cell: nn.Module, macro: nn.Module) -> None:
        super().__init__()
        self.cell, self.join, self.macro = cell, nn.Conv2d(2 * C, C, 1), macro

    def forward(self, x: Tensor) -> Tensor:
        return self.macro(self.join(self.cell(x, x / 2)))


SPACE = SearchSpace("memory", space)
X = torch.randn(2, C, 5, 5, dtype=torch.double, generator=torch.Generator().manual_seed(0))
MODES = [(e, r) for e in ("plain", "planned") for r in ("softmax", "gumbel")]


def pair(evaluation: Any, relaxation: str) -> list[Supernet]:
    made = [
        Supernet(SPACE, seed=1, evaluation=evaluation, relaxation=relaxation, memory=memory).double()
        for memory in ("keep", "checkpoint")  # type: ignore[arg-type]
    ]
    return [copy.deepcopy(supernet) for supernet in made]


@pytest.mark.parametrize(("evaluation", "relaxation"), MODES)
@pytest.mark.parametrize("training", [True, False])
def test_results_are_the_same_bit_for_bit(evaluation: str, relaxation: str, training: bool) -> None:
    found = []
    for supernet in pair(evaluation, relaxation):
        supernet.train(training).on_progress(2, 5)
        torch.manual_seed(0)
        values = {n: v.detach().clone().requires_grad_() for n, v in supernet.named_parameters()}
        output = functional_call(supernet, values, (X,))
        # The gradient comes when parameters, modes, arch parameters and the step are others.
        supernet.train(not training).on_progress(4, 5)
        with torch.no_grad():
            for parameter in supernet.parameters():
                parameter.add_(1.0)
        torch.manual_seed(1)
        gradients = torch.autograd.grad(
            output.square().sum(), list(values.values()), allow_unused=True, materialize_grads=True, create_graph=True
        )
        second = torch.autograd.grad(
            torch.stack([g.square().sum() for g in gradients]).sum(), list(values.values()), allow_unused=True
        )
        found.append([output, *gradients, *(g for g in second if g is not None), *supernet.buffers(), torch.rand(3)])
    assert len(found[0]) == len(found[1])
    assert all(map(torch.equal, *found))


def test_the_inside_is_computed_twice_and_without_gradients_once() -> None:
    for supernet, expected in zip(pair("planned", "softmax"), (1, 2), strict=True):
        Counted.calls = 0
        supernet(X).sum().backward()
        assert Counted.calls == expected * (5 + 1)
        Counted.calls = 0
        with torch.no_grad():
            supernet(X)
        assert Counted.calls == 5 + 1


def test_a_fixed_supernet_stays_fixed_for_its_gradient() -> None:
    genotype = Genotype(
        space="memory",
        choices={
            **{f"c/{n}": (0, 1) for n in (2, 3)},
            **{f"c/{n}<-{s}": "own" for n in (2, 3) for s in (0, 1)},
            "m": "sep_conv_3x3",
        },
    )
    found = []
    for supernet in pair("planned", "softmax"):
        with supernet.fixed(genotype):
            output = supernet(X)
        found.append(torch.autograd.grad(output.square().sum(), list(supernet.parameters()), allow_unused=True))
    for a, b in zip(*found, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.equal(a, b)


def test_levels_move_alike() -> None:
    moved = []
    for supernet in pair("planned", "softmax"):
        unrolled = {"lower": {"name": "unrolled"}}
        lower, upper = ({"loss": "loss", "split": split} for split in ("train", "val"))
        levels = {
            "lower": Level(parameters=("network.*",), optimizer={"name": "sgd", "lr": 0.1}, **lower),
            "upper": Level(
                parameters=("arch.*",),
                optimizer={"name": "sgd", "lr": 0.1},
                hypergradient=unrolled,
                mode="eval",
                **upper,
            ),
        }
        loss = {"loss": lambda model, batch: model(batch).square().mean()}
        step = Multilevel(supernet, levels, loss, lambda split, index: X + index + (split == "val"), 2)
        torch.manual_seed(0)
        for k in range(2):
            step.step(k)
        moved.append(list(supernet.state_dict().values()))
    assert all(map(torch.equal, *moved))
