from __future__ import annotations

import csv
import gzip
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nas.cost.network_cost import measure
from nas.errors import ConfigError, UnknownNameError
from nas.genotype.file import Genotype
from nas.space.cell import Cell
from nas.space.primitives import NAS_BENCH_201
from nas.supernet import Supernet
from nas.testing import SearchSpaceTests
from search_spaces.nas_bench_201 import NOTATION, SMALL, arch_of, genotype_of, nas_bench_201_space, small_space

ARCH = "|nor_conv_3x3~0|+|nor_conv_1x1~0|avg_pool_3x3~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"


def uniform(name: str) -> str:
    """The cell with one operation on all six edges."""
    return NOTATION.format(*[name] * 6)


class TestNASBench201(SearchSpaceTests):
    space = nas_bench_201_space
    options: ClassVar[Mapping[str, Any]] = {"channels": 2, "cells": 1}
    trials = 2

    def example_input(self) -> Tensor:
        return torch.randn(2, 3, 8, 9)


class TestSmall(SearchSpaceTests):
    space = small_space
    options: ClassVar[Mapping[str, Any]] = {"channels": 2}
    trials = 2

    def example_input(self) -> Tensor:
        return torch.randn(2, 1, 8, 9)


def edge(name: str, channels: int) -> int:
    """Parameters of an operation, in closed form."""
    kernel = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}.get(name, 0)
    return kernel**2 * channels**2 + (2 * channels if kernel else 0)


def closed_form(names: list[str], channels: int, cells: int, classes: int) -> int:
    """Parameters of a network of the benchmark: stem, cells, residual blocks, last norm and classifier."""
    widths = (channels, 2 * channels, 4 * channels)
    stem = 27 * channels + 2 * channels
    blocks = sum(9 * c * 2 * c + 9 * (2 * c) ** 2 + c * 2 * c + 2 * (2 * 2 * c) for c in widths[:2])
    searched = sum(cells * edge(name, c) for name in names for c in widths)
    return stem + blocks + searched + 2 * widths[-1] + (widths[-1] + 1) * classes


@pytest.mark.parametrize(
    ("name", "published"), [("none", 73_306), ("skip_connect", 73_306), ("nor_conv_3x3", 1_531_546)]
)
def test_the_extremes_have_the_published_sizes(name: str, published: int) -> None:
    """The least and the largest of the benchmark's params on CIFAR-10, 0.073306 and 1.531546 million."""
    assert measure(genotype_of(uniform(name))) == published
    assert closed_form([name] * 6, 16, 5, 10) == published


@given(names=st.lists(st.sampled_from(list(NAS_BENCH_201)), min_size=6, max_size=6))
def test_notation_and_size_of_any_cell(names: list[str]) -> None:
    genotype = genotype_of(NOTATION.format(*names), channels=4, cells=2, classes=100)
    assert arch_of(genotype) == NOTATION.format(*names)
    assert Genotype.parse(genotype.dump()) == genotype
    assert measure(genotype) == closed_form(names, 4, 2, 100)


def test_a_cell_computes_what_its_notation_says() -> None:
    network: Any = nas_bench_201_space.derived(genotype_of(ARCH, channels=2, cells=1)).eval()
    cell = network.stage_1[0]
    x = torch.randn(2, 2, 6, 6)
    weights = {name: value for name, value in cell.state_dict().items() if value.dim() == 4}
    (first, second, third), scale = weights.values(), (1 + 1e-5) ** -0.5  # of norms that have seen nothing yet
    one = scale * F.conv2d(x.relu(), first, padding=1)
    two = scale * F.conv2d(x.relu(), second) + F.avg_pool2d(one, 3, 1, 1, count_include_pad=False)
    torch.testing.assert_close(cell(x), x + scale * F.conv2d(two.relu(), third, padding=1))


def test_networks_halve_height_and_width_twice() -> None:
    network: Any = nas_bench_201_space.derived(genotype_of(ARCH, channels=2, cells=1))
    shapes: list[tuple[int, ...]] = []
    for layer in network.modules():
        if isinstance(layer, Cell):
            layer.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape)))
    network(torch.randn(2, 3, 32, 30))
    assert shapes == [(2, 2, 32, 30), (2, 4, 16, 15), (2, 8, 8, 8)]


def test_the_supernet_has_six_decisions_of_five_candidates() -> None:
    supernet = Supernet(nas_bench_201_space, channels=2)
    assert {label: len(logits) for label, logits in supernet.arch.items()} == dict.fromkeys(
        ("cell/1<-0", "cell/2<-0", "cell/2<-1", "cell/3<-0", "cell/3<-1", "cell/3<-2"), 5
    )


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ("", "got ''"),
        ("|none~0|", "must be |OPERATION~0|+|OPERATION~0|OPERATION~1|+|"),
        (ARCH[:-1], f"got '{ARCH[:-1]}'"),
        (ARCH + "|", f"got '{ARCH}|'"),
        (ARCH.replace("~2", "~1"), "a cell of NAS-Bench-201 must be"),
        (ARCH.replace("nor_conv_1x1", "nor_conv_1x2"), "did you mean 'nor_conv_1x1'?"),
    ],
)
def test_other_texts_are_errors(arch: str, message: str) -> None:
    with pytest.raises((ConfigError, UnknownNameError)) as error:
        genotype_of(arch)
    assert message in str(error.value)


def test_a_genotype_of_another_space_has_no_notation() -> None:
    with pytest.raises(ConfigError, match="must be of space 'nas-bench-201', got 'darts'"):
        arch_of(msgspec.structs.replace(genotype_of(ARCH), space="darts"))


@pytest.mark.skipif("NAS_DATA" not in os.environ, reason="NAS_DATA, the folder of real data, is not set")
def test_every_cell_of_the_benchmark_is_a_genotype() -> None:
    with gzip.open(Path(os.environ["NAS_DATA"], "nas", "nb201_table.csv.gz"), "rt") as file:
        archs = [row["arch"] for row in csv.DictReader(file)]
    assert len({arch_of(genotype_of(arch)) for arch in archs}) == 5**6


def test_the_small_space_has_four_decisions_of_three_candidates() -> None:
    supernet = Supernet(small_space, channels=2)
    assert {label: len(logits) for label, logits in supernet.arch.items()} == dict.fromkeys(
        ("cell/1<-0", "cell/2<-0", "cell/2<-1", "last"), 3
    )


@given(names=st.lists(st.sampled_from(list(SMALL)), min_size=4, max_size=4))
def test_a_small_network_is_one_of_the_benchmark_with_two_edges_of_zeros(names: list[str]) -> None:
    first, second, third, last = names
    options = {"channels": 2, "cells": 1, "in_channels": 1, "affine": True}
    choices = {"cell/1": (0,), "cell/1<-0": first, "cell/2": (0, 1), "cell/2<-0": second, "cell/2<-1": third}
    genotype = Genotype(space="nas-bench-201-small", choices={**choices, "last": last}, options=options)
    small = small_space.derived(genotype).eval()
    arch = NOTATION.format(first, second, third, "none", "none", last)
    large = nas_bench_201_space.derived(genotype_of(arch, **options)).eval()
    large.load_state_dict(dict(zip(large.state_dict(), small.state_dict().values(), strict=True)))
    images = torch.randn(2, 1, 6, 7)
    assert torch.equal(small(images), large(images))
