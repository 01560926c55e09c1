"""Optimizers by name: their defaults are those of torch, and Adam's weight decay is decoupled unless it is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from nas.multilevel.optimizers import adam, adamw, sgd


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (lambda own: sgd(own, lr=0.1), lambda own: SGD(own, 0.1)),
        (lambda own: adam(own, lr=0.1), lambda own: Adam(own, 0.1)),
        (lambda own: adam(own, lr=0.1, weight_decay=0.5), lambda own: AdamW(own, 0.1, weight_decay=0.5)),
        (
            lambda own: adam(own, lr=0.1, weight_decay=0.5, decoupled=False),
            lambda own: Adam(own, 0.1, weight_decay=0.5),
        ),
        (lambda own: adamw(own, lr=0.1), lambda own: AdamW(own, 0.1)),
    ],
)
def test_they_are_those_of_torch(
    found: Callable[[list[nn.Parameter]], Optimizer], expected: Callable[[list[nn.Parameter]], Optimizer]
) -> None:
    values = []
    for make in (found, expected):
        p = nn.Parameter(torch.tensor([1.0, -3.0]))
        optimizer = make([p])
        for _ in range(3):
            optimizer.zero_grad()
            p.pow(3).sum().backward()
            optimizer.step()
        values.append((optimizer.defaults, p.tolist()))
    assert values[0] == values[1]
