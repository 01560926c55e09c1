"""Shipped genotypes, and one of each other space, in every format: equal to the network it was written from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from nas.derive.random import choose_randomly
from nas.export.equality import greatest_difference
from nas.export.exporting import SUFFIXES, Format, export
from nas.genotype.file import Genotype, shipped
from nas.space.definition import find_space
from written import imported

TMICS = {"channels": 4, "dna_cells": 1, "cna_cells": 1, "flow": {"name": "pyramid", "width": 4, "levels": 2}}
SMALL: dict[str, dict[str, Any]] = {
    "darts": {"channels": 4, "cells": 3},
    "digits": {"channels": 4},
    "nas-bench-201": {"channels": 4, "cells": 1},
    "tmics": TMICS,
}
INPUTS = {"darts": (1, 3, 24, 22), "digits": (1, 1, 8, 8), "nas-bench-201": (1, 3, 12, 10), "tmics": (1, 5, 3, 32, 32)}
TOLERANCE = {"source": 0.0, "pt2": 1e-5, "onnx": 1e-4}
NAMES = ["darts-v1", "darts-v2", "tmics-heavy", "tmics-light", "digits", "nas-bench-201"]
QUICK = {"safetensors": NAMES, "source": ["darts-v2", "nas-bench-201", "tmics-heavy"], "onnx": ["darts-v2"],
         "pt2": ["tmics-heavy"]}  # fmt: skip
"""By format, what every run exports; the others are marked slow."""


def genotype_of(name: str) -> Genotype:
    """A shipped genotype, or a random one of a space."""
    if name in shipped():
        return Genotype.load(name)
    description = find_space(name).describe()
    choices = choose_randomly(description.decisions, torch.Generator().manual_seed(1))
    return Genotype(space=name, choices=choices, options=description.options)


def network_of(genotype: Genotype) -> nn.Module:
    """In eval mode, with statistics of its inputs; no weight is zero."""
    network = find_space(genotype.space).derived(genotype, seed=3)
    generator = torch.Generator().manual_seed(4)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=generator)
        for norm in norms:
            norm.momentum = 0.95  # with 1, rounding alone would differ by 1e-4 after twenty cells
        network.train()(torch.rand(8, *INPUTS[genotype.space][1:], generator=generator))
        for norm in norms:
            norm.momentum = 0.1
    return network.eval()


def read(path: Path, format: Format) -> Callable[[Tensor], Any]:
    """What computes the outputs from a file alone."""
    if format == "source":
        loaded: nn.Module = imported(path).load()
        return loaded
    if format == "pt2":
        return torch.export.load(path).module()
    runtime = pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return lambda x: [torch.from_numpy(output) for output in session.run(None, {given.name: x.numpy()})]


def check(genotype: Genotype, format: Format, folder: Path) -> None:
    """Write the network, read it back, and compare both on inputs of the example's size and of another."""
    if format == "onnx":
        pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
    network, shape = network_of(genotype), INPUTS[genotype.space]
    path = folder / f"network{SUFFIXES[format]}"
    written = export(network, genotype, (torch.zeros(shape),), path, format)
    if format == "safetensors":
        weights = safetensors.torch.load_file(path)
        assert weights.keys() == network.state_dict().keys()
        assert all(torch.equal(weights[name], tensor) for name, tensor in network.state_dict().items())
        return
    if format != "source":
        assert "any height and width" in written.facts
    loaded = read(path, format)
    batch = 1 if "batches of 1" in written.facts else 3
    other = (*shape[:-2], shape[-2] + 7, shape[-1] + 5)
    for size in (shape, (batch, *other[1:])):
        x = torch.rand(size)
        with torch.no_grad():
            expected = network(x)
            assert greatest_difference(loaded(x), expected) <= TOLERANCE[format]
            assert greatest_difference(expected, network(torch.zeros(size))) > 1e-3, "the input counts"


@pytest.mark.parametrize(
    ("name", "format"),
    [
        pytest.param(name, format, marks=() if name in QUICK[format] else pytest.mark.slow)
        for name in NAMES
        for format in SUFFIXES
    ],
)
def test_a_small_network(name: str, format: Format, tmp_path: Path) -> None:
    genotype = genotype_of(name)
    check(msgspec.structs.replace(genotype, options={**genotype.options, **SMALL[genotype.space]}), format, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("format", SUFFIXES)
@pytest.mark.parametrize("name", NAMES)
def test_a_network_of_full_size(name: str, format: Format, tmp_path: Path) -> None:
    check(genotype_of(name), format, tmp_path)
