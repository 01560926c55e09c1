from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nas.cost.network_cost import measure, size
from nas.cost.space_cost import costs
from nas.genotype.file import Genotype
from nas.report.costs import cost_of
from nas.report.recorded import read_run
from nas.space.definition import find_space


def test_costs_of_the_genotype_and_over_the_epochs(searched: Path) -> None:
    run = read_run(searched)
    found = cost_of(run, run)
    assert found is not None
    final = Genotype.load(searched / "genotype.yaml")
    network = find_space("tmics").derived(final)
    assert found.size == size(final)
    assert found.size.evaluation == found.size.training == sum(p.numel() for p in network.parameters())
    assert found.inputs == "1×5×3×64×64"
    assert found.flops == measure(final, "flops", (torch.zeros(1, 5, 3, 64, 64),))
    assert found.plot is not None
    expected, derived = found.plot.lines
    assert expected.values[0] == pytest.approx(found.budget), "uniform mixing, as the search begins"
    assert derived.steps == [10, 20, 30, 40, 50, 60]
    assert derived.values[-1] == found.size.training
    cost = costs(find_space("tmics").describe(**final.options))
    weights = {label: torch.tensor(each.weights[-1]).double() for label, each in run.mixing.items()}
    assert expected.values[-1] == pytest.approx(cost.expected(weights).item())


def test_a_retraining_alone_and_a_space_that_is_not_known(retrained: Path, folder: Path) -> None:
    alone = cost_of(read_run(retrained), None)
    assert alone is not None
    assert alone.plot is None
    assert cost_of(read_run(folder), None) is None
