"""Costs of the genotypes of a search in each epoch, and the expected cost of the supernet."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nas.cost.network_cost import Size, measure, size
from nas.cost.space_cost import Cost, costs
from nas.errors import NASError
from nas.report.history import Series
from nas.report.plot import Plot, make_plot
from nas.report.recorded import Recorded


class Costs(NamedTuple):
    """Costs in parameters, and in FLOPs of one forward pass."""

    size: Size
    """Size of the derived network."""
    flops: float | None
    """FLOPs of the derived network; None if the task cannot be built here."""
    inputs: str
    """Shapes of the inputs for which FLOPs are counted."""
    budget: float
    """Expected parameters with uniform mixing weights: the reference of the regularizer `expected_cost`."""
    plot: Plot | None
    """Parameters over the epochs of the search."""


def cost_of(run: Recorded, search: Recorded | None) -> Costs | None:
    """Return the costs of the genotype of a run, or None if it has none or its space is unknown."""
    genotype = run.genotype
    try:
        if genotype is None or run.description is None:
            return None
        cost = costs(run.description)
        flops, inputs = _flops(run)
        return Costs(size(genotype), flops, inputs, cost.uniform, _plot(search, cost) if search else None)
    except NASError:
        return None


def _plot(search: Recorded, cost: Cost) -> Plot | None:
    """Plot the expected parameters of the supernet and the parameters of the derived network."""
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
    return make_plot("Parameters", lines, level=cost.uniform) if lines else None


def _flops(run: Recorded) -> tuple[float | None, str]:
    """Return the FLOPs of a forward pass of the derived network on an example, and the shapes of the example."""
    if run.config is None or run.genotype is None:
        return None, ""
    try:
        example = run.config.build_task().example()
        shapes = " and ".join("×".join(map(str, item.shape)) for item in example)
        return measure(run.genotype, "flops", example), shapes
    except NASError:
        return None, ""
