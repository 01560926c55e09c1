"""Spaces, supernets, genotypes and derived networks in pickles; derived networks compiled and exported by torch."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from nas.derive.random import choose_randomly
from nas.genotype.file import Genotype
from nas.space.cell import Cell, Chain
from nas.space.chooser import Chooser
from nas.space.definition import SearchSpace, find_space, search_space
from nas.space.primitives import NAS_BENCH_201
from nas.supernet import Supernet


class Stages(nn.Module):
    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            if part in [None, x]:  # compares as any module does
                continue
            x = part(x)
        return x


@search_space("portable")
def portable(choose: Chooser, /) -> nn.Module:
    """Everything that `choose` has."""
    operations = NAS_BENCH_201.without("none").bind(4, affine=True)
    width = choose.width("w", (2, 4))
    return Stages(
        choose("o", operations),
        Cell(choose, "c", operations, nodes=2, inputs=1, keep=1, output="last"),
        Chain(choose, "k", operations, length=2, residual=True),
        choose.depth("d", (0, 2), lambda i: choose(f"b{i}", operations)),
        nn.Conv2d(4, width.channels, 1),
        width,
    )


def plain(choose: Chooser, /) -> nn.Module:
    return choose("o", {"x": nn.Tanh, "y": nn.ReLU})


UNREGISTERED = SearchSpace("unregistered", plain)

SMALL: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "darts": ({"channels": 4, "cells": 2, "nodes": 1}, (2, 3, 12, 12)),
    "digits": ({"channels": 4}, (2, 1, 8, 8)),
    "nas-bench-201": ({"channels": 4, "cells": 1}, (2, 3, 12, 12)),
    "tmics": ({"channels": 4, "dna_cells": 1, "cna_cells": 1, "layers": 2}, (1, 5, 3, 16, 16)),
    "portable": ({}, (2, 4, 6, 6)),
}


def supernet_of(name: str, **arguments: Any) -> tuple[Supernet, Tensor]:
    options, shape = SMALL[name]
    supernet = Supernet(find_space(name), **options, **arguments).eval()
    return supernet, torch.randn(shape, generator=torch.Generator().manual_seed(0))


def derived_of(name: str, seed: int) -> tuple[nn.Module, Tensor]:
    supernet, x = supernet_of(name)
    choices = choose_randomly(supernet.decisions, torch.Generator().manual_seed(seed))
    return supernet.derived(Genotype(space=name, choices=choices, options=supernet.options)), x


def leaves(value: Any) -> list[Tensor]:
    """The tensors in what a network returns."""
    return list(tree_leaves(value if isinstance(value, Tensor | tuple | list) else vars(value)))


def assert_equal(a: Any, b: Any, tolerance: float = 0.0) -> None:
    ours, theirs = leaves(a), leaves(b)
    assert len(ours) == len(theirs) > 0
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance)


SLOW = {"darts", "nas-bench-201", "tmics"}
TRACED = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in SMALL]
"""To trace one of the larger networks takes torch ten seconds."""

COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),  # noqa: S301  # of this test
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", SMALL)
def test_spaces_and_genotypes_survive(name: str, how: str) -> None:
    space = find_space(name)
    assert COPIES[how](space) is space
    genotype = supernet_of(name)[0].derive()
    assert COPIES[how](genotype) == genotype


def test_a_space_without_a_name_of_its_own_is_made_again() -> None:
    again = COPIES["pickle"](UNREGISTERED)
    assert again is UNREGISTERED or (again.name == "unregistered" and again.function is plain)
    network = SearchSpace("other", plain)
    copied = COPIES["pickle"](network)
    assert (copied.name, copied.function) == ("other", plain)


@pytest.mark.parametrize(("evaluation", "memory"), [("plain", "keep"), ("planned", "checkpoint")])
@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", SMALL)
def test_supernets_survive(name: str, how: str, evaluation: str, memory: str) -> None:
    supernet, x = supernet_of(name, evaluation=evaluation, memory=memory)
    for used in (False, True):
        again = COPIES[how](supernet)
        with torch.no_grad():
            expected = supernet(x)
            assert_equal(again(x), expected)
            for parameter in again.parameters():
                parameter.mul_(1.5)
            assert not all(map(torch.equal, leaves(again(x)), leaves(expected))), "the copy mixes by other weights"
            assert_equal(supernet(x), expected)
        assert again.space is supernet.space
        assert used or again.derive() == supernet.derive()


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", SMALL)
def test_derived_networks_survive(name: str, how: str) -> None:
    network, x = derived_of(name, 0)
    with torch.no_grad():
        assert_equal(COPIES[how](network)(x), network(x))


def test_a_pickle_is_read_in_another_process(tmp_path: Path) -> None:
    supernet, x = supernet_of("darts")
    path = tmp_path / "supernet.pickle"
    path.write_bytes(pickle.dumps((supernet, supernet.derive(), x, supernet(x).detach())))
    program = (
        "import pickle, sys, torch\n"
        f"supernet, genotype, x, expected = pickle.load(open({str(path)!r}, 'rb'))\n"
        "assert supernet.derive() == genotype\n"
        "torch.testing.assert_close(supernet(x).detach(), expected)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("name", TRACED)
def test_derived_networks_compile_whole(name: str) -> None:
    torch._dynamo.reset()
    network, x = derived_of(name, 1)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    found, expected = ([value for value in leaves(f(x)) if value.requires_grad] for f in (compiled, network))
    assert_equal(found, expected, 1e-5)
    parameters = list(network.parameters())
    gradients = (torch.autograd.grad(sum(v.square().sum() for v in f), parameters) for f in (found, expected))
    assert_equal(*gradients, 1e-3)


@pytest.mark.parametrize("name", TRACED)
def test_derived_networks_export_strictly(name: str) -> None:
    torch._dynamo.reset()
    network, x = derived_of(name, 2)
    program = torch.export.export(network, (x,), strict=True)
    with torch.no_grad():
        assert_equal(program.module()(x), network(x), 1e-5)


@pytest.mark.parametrize("name", ["portable", pytest.param("darts", marks=pytest.mark.slow)])
def test_sizes_stay_free(name: str) -> None:
    torch._dynamo.reset()
    network, x = derived_of(name, 3)
    batch, height, width = (torch.export.Dim(dim, min=2, max=64) for dim in ("batch", "height", "width"))
    sizes = {0: batch, 2: 2 * height, 3: 2 * width}
    program = torch.export.export(network, (x,), dynamic_shapes=(sizes,), strict=True)
    other = torch.randn(3, x.shape[1], 16, 22)
    with torch.no_grad():
        assert_equal(program.module()(other), network(other), 1e-5)
