"""Zero-cost scores beside closed forms and explicit loops in float64."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nas
from nas.registry import kind
from nas.searchers.activation_kernel import naswot
from nas.searchers.gradient_norm import grad_norm
from nas.searchers.jacobian_covariance import jacob_cov, outputs_of
from nas.searchers.score import LOWEST, find_score, judged, zero_cost
from nas.searchers.synaptic_flow import synflow

GENOTYPE = nas.find_space("nas-bench-201").sample(torch.Generator().manual_seed(4), cells=1, channels=4)
IMAGES = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def network(*layers: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    built = nn.Sequential(*layers).double()
    for parameter in built.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.double))
    return built


def rectified() -> nn.Module:
    return network(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))


def batch(count: int = 6) -> Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(2), dtype=torch.double)


def loss(each: nn.Module) -> Tensor:
    output: Tensor = each(IMAGES)
    return F.cross_entropy(output, torch.arange(6))


def test_synflow_of_a_linear_chain_is_the_closed_form() -> None:
    chain = network(
        nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4), nn.Linear(4, 5, bias=False), nn.Linear(5, 2, bias=False)
    )
    first, second, third = (layer.weight.detach().abs() for layer in (chain[0], chain[2], chain[3]))  # type: ignore[index]
    paths = sum(
        (third[o, k] * second[k, j] * first[j, i]).item()
        for o, k, j, i in product(range(2), range(5), range(4), range(3))
    )
    assert synflow(chain, (torch.zeros(1, 3),)) == pytest.approx(3 * paths, rel=1e-12)


def test_synflow_knows_no_data_and_no_signs() -> None:
    chain = rectified()
    flipped = copy.deepcopy(chain)
    for parameter in flipped.parameters():
        parameter.data.neg_()
    assert synflow(chain, (batch(1),)) == synflow(flipped, (torch.full((1, 5), 7.0),))
    assert synflow(rectified(), (batch(1),)) > synflow(network(nn.Linear(5, 2)), (batch(1),))


def test_naswot_is_the_log_determinant_of_shared_codes() -> None:
    chain, inputs = rectified(), batch()
    with torch.no_grad():
        before = chain[0](inputs)  # type: ignore[index]
        after = chain[2](before.relu())  # type: ignore[index]
    codes = torch.cat([before, after], dim=1) > 0
    kernel = np.array([[(a == b).sum().item() for b in codes] for a in codes], dtype=float)
    assert naswot(chain, (inputs,)) == pytest.approx(math.log(abs(np.linalg.det(kernel))), rel=1e-10)


class Folded(nn.Module):
    """Applies a network to each frame of clips `(batch, frames, ...)`, folded into the batch."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, clips: Tensor) -> Tensor:
        frames: Tensor = self.inner(clips.flatten(0, 1))
        return frames


def test_naswot_takes_the_maps_of_an_input_as_one_code() -> None:
    clips = batch(12).view(6, 2, 5)
    inner = rectified()
    side_by_side = network(nn.Flatten(), nn.Linear(10, 14), nn.ReLU(), nn.Linear(14, 8), nn.ReLU())
    for both, one in ((1, 0), (3, 2)):
        for name in ("weight", "bias"):
            value = getattr(inner[one], name).data  # type: ignore[index]
            blocks = torch.block_diag(value, value) if value.dim() == 2 else value.repeat(2)
            getattr(side_by_side[both], name).data = blocks  # type: ignore[index]
    assert naswot(Folded(inner), (clips,)) == naswot(side_by_side, (clips,)) > 0
    with pytest.raises(nas.NASError, match=r"multiple of the batch size 12, got shape \(2, 7\)"):
        naswot(nn.Sequential(Taken(2), *inner), (batch(12),))  # type: ignore[misc]


class Taken(nn.Module):
    """The first inputs of a batch."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs[: self.count]


def test_naswot_of_inputs_with_one_code_is_the_lowest() -> None:
    assert naswot(rectified(), (batch(1).expand(4, 5),)) == LOWEST


def test_naswot_of_a_network_without_rectifiers_is_the_lowest() -> None:
    assert naswot(network(nn.Linear(5, 2)), (batch(),)) == LOWEST


def test_jacob_cov_by_loops() -> None:
    chain, inputs = rectified(), batch()
    rows = []
    for x in inputs:
        x = x.clone().requires_grad_()
        chain(x).sum().backward()
        assert x.grad is not None
        rows.append(x.grad.numpy())
    correlations = np.array([[np.corrcoef(a, b)[0, 1] for b in rows] for a in rows])
    eigenvalues = np.linalg.eigvals(correlations).real
    expected = -sum(math.log(v + 1e-5) + 1 / (v + 1e-5) for v in eigenvalues.clip(0))
    assert jacob_cov(chain, (inputs,)) == pytest.approx(expected, rel=1e-6)


def test_jacob_cov_of_a_constant_is_the_lowest() -> None:
    chain = rectified()
    chain[0].weight.data.zero_()  # type: ignore[index]
    assert jacob_cov(chain, (batch(),)) == LOWEST


def test_grad_norm_by_finite_differences() -> None:
    chain, inputs, step = rectified(), batch(), 1e-6

    def squared(each: nn.Module) -> Tensor:
        return each(inputs).square().mean()  # type: ignore[no-any-return]

    expected = 0.0
    for layer in (0, 2, 4):
        weight, squares = chain[layer].weight.data, 0.0  # type: ignore[index]
        for index in product(*map(range, weight.shape)):
            values = []
            for shift in (step, -2 * step):
                weight[index] += shift
                values.append(squared(chain).item())
            weight[index] += step
            squares += ((values[0] - values[1]) / (2 * step)) ** 2
        expected += squares**0.5
    assert grad_norm(chain, squared) == pytest.approx(expected, rel=1e-6)


UNTRAINED = [name for name in kind("score").names() if name not in ("retraining", "one_shot")]


@pytest.mark.parametrize("name", UNTRAINED)
def test_a_score_is_a_function_of_genotype_batch_and_seed(name: str) -> None:
    def score(seed: int) -> float:
        return zero_cost(name, GENOTYPE, (IMAGES,), loss, seed=seed)

    assert score(0) == score(0)
    assert (score(0) == score(1)) == (name in ("params", "flops"))


@pytest.mark.parametrize(
    ("space", "shape", "options"),
    [
        ("darts", (3, 16, 16), {"channels": 2, "cells": 2, "nodes": 1}),
        ("digits", (1, 8, 8), {}),
        ("nas-bench-201", (3, 8, 8), {"channels": 2, "cells": 1}),
        ("nas-bench-201-small", (1, 8, 8), {}),
        ("nas-bench-macro", (3, 16, 16), {}),
        ("ruas", (3, 8, 8), {"channels": 2}),
        ("tmics", (5, 3, 16, 16), {"channels": 2, "dna_cells": 1, "cna_cells": 1, "layers": 1}),
    ],
)
def test_every_shipped_space_has_every_score(space: str, shape: tuple[int, ...], options: Any) -> None:
    genotype = nas.find_space(space).sample(torch.Generator().manual_seed(0), **options)
    inputs = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))

    def squared(each: nn.Module) -> Tensor:
        return torch.stack([output.square().mean() for output in outputs_of(each(inputs))]).sum()

    for name in UNTRAINED:
        assert math.isfinite(zero_cost(name, genotype, (inputs,), squared))


def test_a_score_says_what_it_lacks() -> None:
    with pytest.raises(nas.NASError, match="score 'grad_norm' needs 'loss', got nothing"):
        zero_cost("grad_norm", GENOTYPE, (IMAGES,))


@pytest.mark.parametrize("value", [math.nan, math.inf, "high", None])
def test_a_score_must_be_finite(value: float) -> None:
    constant: Callable[..., float] = lambda genotype: value  # noqa: E731
    with pytest.raises(nas.NASError, match=r"score 'odd' must be a finite number, got .* for cell") as error:
        judged(constant, "odd", GENOTYPE, {"genotype": lambda: GENOTYPE})
    assert "\n" not in str(error.value)


def test_an_unknown_score() -> None:
    with pytest.raises(nas.NASError, match=r"unknown score 'synflw' .did you mean 'synflow'"):
        find_score("synflw")
