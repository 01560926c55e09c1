"""What the genotypes of a search cost, epoch by epoch, beside what the supernet is expected to."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nas.cost import Cost, Size, costs, measure, size
from nas.errors import NASError
from nas.report.history import Series
from nas.report.pictures import describe
from nas.report.plot import Plot, plot
from nas.report.recorded import Recorded


class Costs(NamedTuple):
    """Costs in parameters, and in FLOPs of one forward pass."""

    size: Size
    """Of the network that the genotype derives."""
    flops: float | None
    """Of the same; None where the task cannot be built here."""
    inputs: str
    """The shapes of the inputs that FLOPs are counted for."""
    budget: float
    """The expected parameters under uniform mixing weights: what the term `expected_cost` compares with."""
    plot: Plot | None
    """Over the epochs, of a search."""


def cost_of(run: Recorded, search: Recorded | None) -> Costs | None:
    """The costs of a run's genotype, and over the epochs of its search; None without a genotype, or its space."""
    genotype = run.genotype
    if genotype is None:
        return None
    try:
        cost = costs(describe(genotype))
        flops, inputs = _flops(run)
        return Costs(size(genotype), flops, inputs, cost.uniform, _plot(search, cost) if search else None)
    except NASError:
        return None


def _plot(search: Recorded, cost: Cost) -> Plot | None:
    """The parameters that the supernet is expected to have, and those of the genotype it derives."""
    steps = sorted({step for mixing in search.mixing.values() for step in mixing.steps})
    at: dict[int, dict[str, Tensor]] = {step: {} for step in steps}
    for label, mixing in search.mixing.items():
        for step, weights in zip(mixing.steps, mixing.weights, strict=True):
            at[step][label] = torch.tensor(weights, dtype=torch.double)
    derived = search.genotypes
    lines = {
        "expected of the supernet": Series(steps, [cost.expected(at[step]).item() for step in steps]),
        "derived network": Series([*derived], [cost.of(genotype.choices) for genotype in derived.values()]),
    }
    lines = {name: series for name, series in lines.items() if series.steps}
    return plot("Parameters", lines, level=cost.uniform) if lines else None


def _flops(run: Recorded) -> tuple[float | None, str]:
    """Of one forward pass of the derived network on an example of its task, and the shapes of that."""
    if run.config is None or run.genotype is None:
        return None, ""
    try:
        example = run.config.build_task().example()
        shapes = " and ".join("×".join(map(str, item.shape)) for item in example)
        return measure(run.genotype, "flops", example), shapes
    except NASError:
        return None, ""
