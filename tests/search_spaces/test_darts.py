from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.cost.network_cost import measure, size
from nas.errors import ConfigError
from nas.genotype.file import Genotype
from nas.graph.network_graph import build_graph
from nas.space.primitives import DropPath, FactorizedReduce
from nas.supernet import Supernet
from nas.testing import SearchSpaceTests
from search_spaces.darts import darts_space


class TestDarts(SearchSpaceTests):
    space = darts_space
    options: ClassVar[Mapping[str, Any]] = {"channels": 2, "cells": 3, "nodes": 2}
    trials = 2

    def example_input(self) -> Tensor:
        return torch.randn(2, 3, 8, 8)


class TestDartsForTraining(TestDarts):
    options: ClassVar[Mapping[str, Any]] = {
        **TestDarts.options,
        "affine": True,
        "auxiliary": True,
        "drop_path": 0.3,
        "operations": "darts-evaluation",
    }

    def example_input(self) -> Tensor:
        return torch.randn(2, 3, 21, 24)


def test_the_supernet_has_the_published_size() -> None:
    supernet = Supernet(darts_space)
    assert sum(p.numel() for p in supernet.network.parameters()) == 1_930_618
    shapes = {cell: [p.shape for n, p in supernet.arch.items() if n.startswith(cell)] for cell in ("normal", "reduce")}
    assert shapes == {"normal": [(8,)] * 14, "reduce": [(8,)] * 14}


def test_the_published_network_has_the_published_size() -> None:
    genotype = Genotype.load("darts-v2")
    assert measure(genotype) == 3_349_342
    trained = Genotype(space="darts", choices=genotype.choices, options={**genotype.options, "auxiliary": True})
    channels, classes = 4 * 4 * 36, 10
    head = 128 * channels + 2 * 128 + 768 * 128 * 4 + 2 * 768 + (768 + 1) * classes
    assert measure(trained) == 3_349_342 + head
    assert size(trained) == (3_349_342, 3_825_768)
    assert str(size(trained)) == "3,349,342 (3,825,768 with what only training uses)"
    assert str(size(genotype)) == "3,349,342"


@pytest.mark.parametrize(
    ("name", "parameters", "published", "auxiliary"),
    [  # in millions, as the paper or the authors' code prints them
        ("darts-pt", 3_328_174, "3.33", False),
        ("drnas", 4_099_294, "4.1", False),
        ("fair-darts-b", 3_407_878, "3.88", True),
        ("fair-darts-d", 3_365_542, "3.84", True),
        ("gdas", 3_368_782, "3.4", False),
        ("p-darts", 3_433_798, "3.43", False),
        ("pc-darts", 3_634_678, "3.63", False),
        ("sdarts-adv", 3_344_806, "3.3", False),
        ("sdarts-rs", 3_606_166, None, False),
        ("snas", 2_847_358, "2.8", False),
    ],
)
def test_a_published_cell_has_the_published_size(
    name: str, parameters: int, published: str | None, auxiliary: bool
) -> None:
    """`auxiliary`: the authors count the auxiliary head, too. The paper of `sdarts-rs` counts another network."""
    genotype = Genotype.load(name)
    assert measure(genotype) == parameters
    if published:
        counted = parameters + auxiliary * (3_825_768 - 3_349_342)
        assert f"{counted / 1e6:.{len(published) - 2}f}" == published


def test_the_published_network_for_imagenet_has_the_published_size() -> None:
    """4.7 million, says the paper."""
    genotype, size = Genotype.load("darts-v2"), 4_718_752
    large = {**genotype.options, "channels": 48, "cells": 14, "classes": 1000, "stem": "imagenet"}
    network = Genotype(space="darts", choices=genotype.choices, options=large)
    assert measure(network) == size
    trained = Genotype(space="darts", choices=genotype.choices, options={**large, "auxiliary": True})
    head = 128 * 4 * 4 * 48 + 2 * 128 + 768 * 128 * 4 + (768 + 1) * 1000
    assert measure(trained) == size + head


def small(**options: Any) -> nn.Module:
    """A narrow network with the cells of DARTS V2; 4 cells, of which number 1 and 2 are reduction cells."""
    choices = Genotype.load("darts-v2").choices
    return darts_space.derived(Genotype(space="darts", choices=choices, options={"channels": 2, "cells": 4, **options}))


def cells_of(network: Any, first: Tensor, second: Tensor) -> Tensor:
    """The output of all cells, as the paper says."""
    for stage in network.cells:
        states = [stage.before(first), stage.last(second)]
        for node in stage.cell.nodes:
            states.append(sum(edge(states[int(source)]) for source, edge in node.named_children()))
        first, second = second, torch.cat(states[2:], 1)
    return second


def test_a_network_computes_what_the_paper_says() -> None:
    network: Any = small(affine=True).eval()
    x = torch.randn(2, 3, 32, 32)
    stem = network.stem(x)
    pooled = F.adaptive_avg_pool2d(cells_of(network, stem, stem), 1).flatten(1)
    assert torch.equal(network(x), network.classifier(pooled))


def test_the_stem_for_imagenet_is_the_authors() -> None:
    network: Any = small(affine=True, stem="imagenet", channels=6).eval()
    x = torch.randn(2, 3, 224, 224)
    conv, norm, _, other, behind = network.stem
    first = behind(F.conv2d(norm(F.conv2d(x, conv.weight, None, 2, 1)).relu(), other.weight, None, 2, 1))
    assert (conv.out_channels, first.shape, network.stem(x).equal(first)) == (3, (2, 6, 56, 56), True)
    _, conv, norm = network.second
    second = norm(F.conv2d(first.relu(), conv.weight, None, 2, 1))
    assert (second.shape, network.second(first).equal(second)) == ((2, 6, 28, 28), True)
    assert [isinstance(stage.before, FactorizedReduce) for stage in network.cells] == [True, False, True, True]
    second = cells_of(network, first, second)
    assert second.shape[-2:] == (7, 7)
    assert torch.equal(network(x), network.classifier(second.mean((2, 3))))
    trained = small(stem="imagenet", auxiliary=True)
    assert [scores.shape for scores in trained(x)] == [(2, 10), (2, 10)]


def test_reduction_cells_halve_height_and_width_and_double_the_channels() -> None:
    network: Any = small()
    shapes: list[tuple[int, ...]] = []
    for stage in network.cells:
        stage.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape)))
    network(torch.randn(2, 3, 32, 30))
    assert shapes == [(2, 8, 32, 30), (2, 16, 16, 15), (2, 32, 8, 8), (2, 32, 8, 8)]


def test_the_auxiliary_head_is_the_authors_on_cifar_and_trains_the_cells_before_it() -> None:
    network: Any = small(auxiliary=True)
    seen: list[Tensor] = []
    network.cells[2].register_forward_hook(lambda module, inputs, output: seen.append(output))
    x = torch.randn(4, 3, 32, 32)
    scores, auxiliary = network(x)
    network.eval()
    assert isinstance(network(x), Tensor)
    network.train()
    pooled = F.avg_pool2d(seen[0].relu(), 5, stride=3, padding=0, count_include_pad=False)
    assert seen[0].shape[-2:] == (8, 8)
    assert torch.equal(auxiliary, network.auxiliary[2:](pooled))
    reached = torch.autograd.grad(auxiliary.sum(), list(network.cells.parameters()), allow_unused=True)
    numbers = [name.split(".")[0] for name, _ in network.cells.named_parameters()]
    assert {n for n, g in zip(numbers, reached, strict=True) if g is not None} == {"0", "1", "2"}
    assert scores.shape == auxiliary.shape == (4, 10)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 3, 20, 40), "maps of 6x6 or more, got maps of 5x10 of images of 20x40"),
        ((2, 3, 32, 8), "maps of 6x6 or more, got maps of 8x2 of"),
        ((1, 3, 32, 32), "batches of 2 or more, got maps of 8x8 .* in a batch of 1"),
        ((1, 3, 21, 21), "batches of 2 or more, got maps of 6x6"),
        ((2, 3, 21, 21), None),
        ((1, 3, 33, 33), None),
        ((1, 3, 21, 33), None),
    ],
)
def test_what_the_auxiliary_head_cannot_see_says_what_to_do(shape: tuple[int, ...], message: str | None) -> None:
    network: Any = small(auxiliary=True)
    images = torch.randn(shape)
    if message is None:
        assert [scores.shape for scores in network(images)] == [(shape[0], 10)] * 2
    else:
        with pytest.raises(ConfigError, match=message):
            network(images)
        for seen in (images, torch.randn(1, 3, 8, 8)):
            assert network.eval()(seen).shape == (len(seen), 10)  # which does not use it


def test_drop_path_spares_identities_and_evaluation() -> None:
    network = small(drop_path=0.5)
    dropping = [name.split(".")[-2] for name, module in network.named_modules() if isinstance(module, DropPath)]
    assert set(dropping) == {"sep_conv_3x3", "dil_conv_3x3", "max_pool_3x3"}  # all skips of V2 are identities
    x = torch.randn(2, 3, 16, 16)
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))


@pytest.mark.parametrize("cells", [1, 2, 3])
def test_few_cells_work(cells: int) -> None:
    network = Supernet(darts_space, channels=2, cells=cells, nodes=1, classes=3, in_channels=1, auxiliary=True).train()
    assert [scores.shape for scores in network(torch.randn(2, 1, 24, 24))] == [(2, 3), (2, 3)]


def test_its_picture_shows_both_stems_for_imagenet() -> None:
    drawn = build_graph(darts_space.describe(cells=3, stem="imagenet"), cells="closed")
    label = {node: attributes["label"] for node, attributes in drawn.nodes(data=True)}
    inputs = [{label[source] for source in drawn.pred[node]} for node in drawn.nodes if label[node] == "normal"]
    assert inputs[0] == {"stem", "second"}


def test_its_picture_shows_the_auxiliary_head() -> None:
    drawn = build_graph(darts_space.describe(cells=6, auxiliary=True), cells="closed")
    label = dict(drawn.nodes(data="label"))
    assert {(label[a], label[b]) for a, b in drawn.edges if "auxiliary" in (label[a], label[b])} == {
        ("reduce", "auxiliary"),
        ("auxiliary", "output"),
    }
