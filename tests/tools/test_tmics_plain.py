"""The fast evaluation of TMICS against the plain one that the benchmark compares it with, in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nas.supernet import Supernet
from tmics_space.frequency import decompose
from tmics_space.network import Restored
from tmics_space.space import tmics
from written import imported

TOOLS = Path(__file__).parents[2] / "tools"


plain = imported(TOOLS / "tmics_plain.py")


def supernet(**options: Any) -> Supernet:
    """A supernet away from its initial weights, in float64."""
    torch.manual_seed(0)
    options = {
        "channels": 4,
        "dna_cells": 1,
        "cna_cells": 1,
        "layers": 1,
        "flow": {"name": "pyramid", "width": 4},
    } | options
    network = Supernet(tmics, **options).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def window(seed: int = 0) -> Tensor:
    return torch.rand(2, 5, 3, 17, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def loss_of(restored: Restored) -> Tensor:
    """A number that every output is part of."""
    images = (restored.output, restored.dominant, restored.companion, restored.weight)
    return restored.photometric + sum((k + 1) * image.sin().mean() for k, image in enumerate(images))


def close(found: Tensor, expected: Tensor, atol: float = 1e-12) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=atol)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("averaging", ["channel", "pixel"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["channels first", "last"])
def test_outputs_gradients_and_buffers_are_equal(training: bool, averaging: str, layout: torch.memory_format) -> None:
    fast = supernet(averaging=averaging).train(training)
    reference = plain.plain(fast)
    fast.to(memory_format=layout)
    assert list(fast.state_dict()) == list(reference.state_dict())
    found, expected = fast(window()), reference(window())
    for ours, theirs in zip(found, expected, strict=True):
        close(ours, theirs)
    gradients = [
        torch.autograd.grad(loss_of(r), list(n.parameters())) for r, n in ((found, fast), (expected, reference))
    ]
    for ours, theirs in zip(*gradients, strict=True):
        close(ours, theirs)
    for ours, theirs in zip(fast.buffers(), reference.buffers(), strict=True):
        close(ours, theirs)


def test_second_derivatives_are_equal() -> None:
    """The product of the Hessian with a vector, over operation weights and arch parameters alike."""
    fast = supernet()
    products = []
    for network in (fast, plain.plain(fast)):
        parameters = list(network.parameters())
        first = torch.autograd.grad(loss_of(network(window())), parameters, create_graph=True)
        generator = torch.Generator().manual_seed(2)
        vectors = [torch.randn(p.shape, dtype=torch.float64, generator=generator) for p in parameters]
        along = sum((g * v).sum() for g, v in zip(first, vectors, strict=True))
        products.append(torch.autograd.grad(along, parameters))
    scale = max(product.abs().max() for product in products[1]).item()
    assert scale > 1
    for ours, theirs in zip(*products, strict=True):
        close(ours, theirs, 1e-12 * scale)


def test_the_guided_decomposition_is_that_of_cumulative_sums() -> None:
    p = torch.randn(2, 6, 23, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found, expected = decompose(p, (2, 4, 6)), plain.decompose(p, (2, 4, 6))
    assert found.shape == (2, 6 * 3 * 2, 23, 30)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    weights = torch.randn(found.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ours, theirs = (torch.autograd.grad((weights * out).sum(), p)[0] for out in (found, expected))
    close(ours, theirs, 1e-11)


def test_a_plain_network_is_plain() -> None:
    reference = plain.plain(supernet())
    kinds = {type(module) for module in reference.modules()}
    assert kinds.isdisjoint(plain.PLAIN)
    assert kinds >= set(plain.PLAIN.values())
    assert all(p.is_contiguous() for p in reference.parameters())
