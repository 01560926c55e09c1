"""Collapse indicators against closed forms, and what they advise."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import toy
from nas.genotype.decision import Choice
from nas.genotype.file import Genotype, Provenance, shipped
from nas.hypergradient.eigenvalue import largest_eigenvalue
from nas.run import collapse as observe
from nas.run.collapse import Collapse, advice, sharpened, sharpness, skips
from nas.space.cell import Cell, Chain
from nas.space.chooser import Chooser
from nas.space.definition import SearchSpace, find_space
from nas.space.primitives import DARTS
from nas.supernet import Supernet

# The largest eigenvalue


def symmetric(spectrum: list[float], seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(len(spectrum), len(spectrum), generator=generator, dtype=torch.double))[0]
    return basis @ torch.diag(torch.tensor(spectrum, dtype=torch.double)) @ basis.T


def found(matrix: Tensor, products: int) -> float:
    start = torch.randn(len(matrix), generator=torch.Generator().manual_seed(1)).to(matrix)
    value, error = largest_eigenvalue(lambda v: matrix @ v, start, products)
    distances = (torch.linalg.eigvalsh(matrix) - value).abs()
    assert distances.min().item() <= error + 1e-6 * max(1.0, matrix.abs().max().item()), "the stated bound"
    return value


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=12), st.integers(0, 99))
def test_it_is_exact_after_as_many_products_as_there_are_eigenvalues(spectrum: list[float], seed: int) -> None:
    matrix = symmetric(spectrum, seed)
    assert found(matrix, len(spectrum)) == pytest.approx(max(spectrum), abs=1e-6 * max(1.0, *map(abs, spectrum)))


@pytest.mark.parametrize(
    ("spectrum", "largest"),
    [([3.0, 1.0, -9.0], 3.0), ([-1.0, -2.0, -3.0], -1.0), ([1.0, -1.0], 1.0), ([0.0] * 4, 0.0), ([2.0] * 3, 2.0)],
    ids=["a greater negative one", "negative", "of equal size", "zeros", "all equal"],
)
def test_it_is_the_largest_and_not_the_greatest_in_size(spectrum: list[float], largest: float) -> None:
    assert found(symmetric(spectrum), 9) == pytest.approx(largest, abs=1e-9)


def test_it_is_never_below_the_power_iteration() -> None:
    matrix = symmetric([10.0, 9.0, *torch.linspace(-3, 3, 30).tolist()])
    start = torch.randn(32, generator=torch.Generator().manual_seed(1)).double()
    vector = start
    for products in range(1, 12):
        rayleigh = (vector @ matrix @ vector / (vector @ vector)).item()
        assert rayleigh - 1e-9 <= found(matrix, products) <= 10.0 + 1e-9
        vector = matrix @ vector
        vector = vector / vector.norm()
    assert found(matrix, 12) == pytest.approx(10.0, rel=1e-3)


def test_the_error_falls_to_zero() -> None:
    matrix = symmetric([10.0, *torch.linspace(-3, 3, 30).tolist()])
    start = torch.randn(31, generator=torch.Generator().manual_seed(1)).double()
    errors = [largest_eigenvalue(lambda v: matrix @ v, start, products).error for products in (4, 12)]
    assert errors[0] > 0.1
    assert errors[1] < 0.05


def test_a_product_that_is_not_finite_has_no_eigenvalue() -> None:
    estimate = largest_eigenvalue(lambda v: v * torch.nan, torch.ones(3), 2)
    assert all(map(math.isnan, estimate))


# Gradient and Hessian of a supernet

PRICES = torch.tensor([3.0, -1.0, 0.5, 2.0], dtype=torch.double)


class Constant(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return x * 0 + self.value


def priced(choose: Chooser, /) -> nn.Module:
    """One decision whose output is the mixing weights' mean of `PRICES`."""
    return choose("only", {f"c{i}": (lambda p=p: Constant(p)) for i, p in enumerate(PRICES.tolist())})


def logits(supernet: Supernet, *values: float) -> None:
    with torch.no_grad():
        supernet.arch["only"].copy_(torch.tensor(values, dtype=torch.double))


@pytest.mark.parametrize("values", [(0.0, 0.0, 0.0, 0.0), (1.0, -2.0, 0.3, 0.7)])
def test_sharpness_is_that_of_the_closed_form(values: tuple[float, ...]) -> None:
    """L = sum w_i c_i with w = softmax(a): g_i = w_i (c_i - L) and H_ij = [i=j] g_i - w_i w_j (c_i + c_j - 2 L)."""
    supernet = Supernet(SearchSpace("priced", priced)).double()
    logits(supernet, *values)
    w = torch.tensor(values, dtype=torch.double).softmax(0)
    loss = w @ PRICES
    gradient = w * (PRICES - loss)
    hessian = torch.diag(gradient) - torch.outer(w, w) * (PRICES[:, None] + PRICES - 2 * loss)
    got = sharpness(supernet, lambda model: model(torch.zeros((), dtype=torch.double)), products=4)
    assert got["gradient"] == pytest.approx(gradient.norm().item(), rel=1e-12)
    assert got["eigenvalue"] == pytest.approx(torch.linalg.eigvalsh(hessian)[-1].item(), rel=1e-9)
    less = sharpness(supernet, lambda model: -model(torch.zeros((), dtype=torch.double)), products=4)
    assert less["eigenvalue"] == pytest.approx(-torch.linalg.eigvalsh(hessian)[0].item(), rel=1e-9)
    assert less["eigenvalue_error"] == pytest.approx(0, abs=1e-6)


def deep(choose: Chooser, /) -> nn.Module:
    """Eight decisions over small layers, one after another."""
    kinds = {"tanh": nn.Tanh, "linear": lambda: nn.Linear(6, 6), "skip": nn.Identity, "silu": nn.SiLU}
    return nn.Sequential(*(choose(f"layer{i}", kinds) for i in range(8)))


@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_few_products_suffice_on_a_supernet(scale: float) -> None:
    supernet = Supernet(SearchSpace("deep", deep)).double().eval()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for values in supernet.arch.values():
            values.copy_(scale * torch.randn(len(values), generator=generator))
    x = torch.randn(9, 6, generator=generator, dtype=torch.double)

    def loss(model: nn.Module) -> Tensor:
        return (model(x) - x.cos()).square().mean()  # type: ignore[no-any-return]

    arch = list(supernet.arch.values())
    gradient = torch.cat(torch.autograd.grad(loss(supernet), arch, create_graph=True))
    rows = [torch.cat(torch.autograd.grad(g, arch, retain_graph=True)) for g in gradient]
    exact = torch.linalg.eigvalsh(torch.stack(rows))[-1].item()
    for products, error in ((5, 0.03), (len(rows), 1e-6)):
        got = sharpness(supernet, loss, products)
        assert got["eigenvalue"] == pytest.approx(exact, rel=error)
        assert abs(got["eigenvalue"] - exact) <= got["eigenvalue_error"] + 1e-9
    assert torch.linalg.matrix_rank(torch.stack(rows)) > 12  # else five were nearly as many as there are


def test_a_loss_that_arch_parameters_do_not_enter_is_flat() -> None:
    supernet = Supernet(SearchSpace("priced", priced))
    weight = torch.ones((), requires_grad=True)
    assert sharpness(supernet, lambda model: weight * 2, products=3) == {
        "gradient": 0.0,
        "eigenvalue": 0.0,
        "eigenvalue_error": 0.0,
    }


def test_looking_changes_nothing() -> None:
    config = toy.config()
    supernet = Supernet(toy.toy, channels=4)
    task = config.build_task()
    state, random = copy.deepcopy(supernet.state_dict()), torch.get_rng_state()
    taken = [sharpness(supernet, lambda m: task.losses["fused"](m, task.batch("val", 0)), 3) for _ in range(2)]
    assert taken[0] == taken[1]
    assert taken[0]["gradient"] > 0
    assert all(torch.equal(value, state[name]) for name, value in supernet.state_dict().items())
    assert all(p.grad is None for p in supernet.parameters())
    assert torch.equal(random, torch.get_rng_state())
    assert all(module.training for module in supernet.modules())


# Skip connections


def two_cells(choose: Chooser, /) -> nn.Module:
    """A DAG cell of DARTS operations, a chain of convolutions, and a macro decision."""
    convolutions = {f"conv{k}": (lambda k=k: nn.Conv2d(4, 4, k, padding=k // 2)) for k in (1, 3)}
    body = nn.Module()
    body.cell = Cell(choose, "cell", DARTS.bind(4), nodes=2)
    body.chain = Chain(choose, "chain", convolutions, length=2)
    body.head = choose("head", {"none": nn.Identity, "conv": lambda: nn.Conv2d(4, 4, 1)})
    return body


FOUR = ("cell/2<-0", "cell/2<-1", "cell/3<-1", "cell/3<-2")


@pytest.mark.parametrize(
    ("operations", "share"),
    [
        (["skip_connect"] * 4, 1.0),
        (["sep_conv_3x3"] * 4, 0.0),
        (["max_pool_3x3", "dil_conv_3x3", "none", "sep_conv_5x5"], 0.0),
        (["sep_conv_3x3", "skip_connect", "avg_pool_3x3", "sep_conv_3x3"], 0.25),
    ],
)
def test_the_share_of_skip_connections(operations: list[str], share: float) -> None:
    description = SearchSpace("two", two_cells).describe()
    choices: dict[str, Choice] = {"head": "none", "chain/1": "conv1", "chain/2": "conv3"}
    choices |= {"cell/2": (0, 1), "cell/3": (1, 2), **dict(zip(FOUR, operations, strict=True))}
    assert skips(description, choices) == {"cell": share}, "a chain of convolutions cannot collapse"
    assert skips(description, choices, [*FOUR[:2], "chain/1"])["cell"] == sum(
        operation == "skip_connect" for operation in operations[2:]
    ) / len(operations)
    assert skips(description, {"head": "none"}) == {}


PUBLISHED = {  # skip connections of the normal and of the reduction cell, of eight operations each
    "darts-v1": (3, 3), "darts-v2": (2, 3), "darts-pt": (3, 2), "drnas": (1, 1), "fair-darts-b": (0, 3),
    "fair-darts-d": (0, 1), "gdas": (4, 0), "p-darts": (2, 0), "pc-darts": (1, 0),
    "sdarts-adv": (2, 4), "sdarts-rs": (2, 1), "snas": (4, 0),
}  # fmt: skip


def test_no_advice_condemns_the_published_cells() -> None:
    for name in shipped():
        genotype = Genotype.load(name)
        small = {"cells": 3} if genotype.space == "darts" else {}
        found = skips(find_space(genotype.space).describe(**genotype.options | small), genotype.choices)
        expected = dict(zip(("normal", "reduce"), PUBLISHED.get(name, ()), strict=False))
        assert found == {cell: count / 8 for cell, count in expected.items()}
        record = {"step": 1, "entropy": 0.1, **{f"skips/{cell}": share for cell, share in found.items()}}
        assert advice([record], finished=True) == []


def test_the_indicators_of_an_epoch() -> None:
    supernet = Supernet(SearchSpace("priced", priced))
    logits(supernet, 0.0, math.log(2.0), 0.0, 0.0)  # mixing weights of a fifth, and two fifths
    provenance = Provenance(margins={"a": 0.1, "b": 0.5}, undecided=("b",))
    genotype = Genotype(space="priced", choices={}, provenance=provenance)
    seen = Collapse(supernet.space.describe()).on_epoch(1, supernet, genotype)
    expected = -(3 * 0.2 * math.log(0.2) + 0.4 * math.log(0.4)) / math.log(4)
    margins = {"margin": pytest.approx(0.3), "least_margin": 0.1, "undecided": 0.5}
    assert seen == {"entropy": pytest.approx(expected), **margins}
    apart = Supernet(SearchSpace("priced", priced), relaxation="sigmoid")  # its weights have no entropy
    assert Collapse(supernet.space.describe()).on_epoch(1, apart, genotype) == margins


# Advice


def epochs(**values: list[float]) -> list[dict[str, Any]]:
    """Indicators of as many epochs of ten steps as there are values, all well besides these."""
    fine = {"entropy": 0.5, "margin": 0.3, "least_margin": 0.1, "gradient": 1.0, "skips/cell": 0.25}
    count = len(next(iter(values.values())))
    return [
        {"kind": "observer", "step": 10 * (i + 1), **fine, **{name: each[i] for name, each in values.items()}}
        for i in range(count)
    ]


def test_nothing_to_say() -> None:
    assert advice([]) == []
    assert advice(epochs(entropy=[1.0, 0.2]), finished=True) == []
    assert advice(epochs(entropy=[1.0, 1.0])) == [], "early on everything is open"
    assert advice(epochs(eigenvalue=[1.0] * 20)) == []
    assert advice(epochs(eigenvalue=[1.0] * 3 + [9.0] * 3)) == [], "too few epochs to smooth"


@pytest.mark.parametrize(("share", "entropy", "said"), [(0.5, 0.5, 0), (0.75, 0.5, 1), (0.75, 0.9, 1), (0.75, 0.99, 0)])
def test_a_cell_that_collapses_once_its_decisions_are_made(share: float, entropy: float, said: int) -> None:
    lines = advice([{**epochs(entropy=[entropy])[0], "skips/normal": share}])
    assert [line.startswith("cell 'normal' has collapsed: 75% of its operations are skip") for line in lines] == [
        True
    ] * said


@pytest.mark.parametrize(("after", "said"), [(1.37, False), (1.38, True)])
def test_sharpness_by_the_rule_of_its_authors(after: float, said: bool) -> None:
    """They stop where the mean of five eigenvalues is above 1.3 times the one four epochs ago; one epoch is in both."""
    lines = advice(epochs(eigenvalue=[7.0] + [1.0] * 5 + [after] * 4))
    assert ((1 + 4 * after) / 5 > 1.3) == said
    assert [line for line in lines if "RobustDARTS would stop, and use the genotype of step 40" in line] == lines
    assert len(lines) == said


@given(st.lists(st.one_of(st.floats(-1, 9), st.none()), max_size=14), st.sampled_from([1, 3, 5]), st.integers(1, 4))
def test_growth_of_centred_means(values: list[float | None], window: int, delta: int) -> None:
    """The oracle takes the means of all positions, with values outside left out."""
    half = window // 2
    padded = np.pad(np.array([np.inf if v is None else v for v in values]), half, constant_values=np.nan)
    means = [float(np.nanmean(padded[i : i + window])) for i in range(len(values) - half)]
    expected = None
    if len(means) > delta:
        before, now = means[-1 - delta], means[-1]
        if math.isfinite(before) and math.isfinite(now) and before > 0 and now / before > 1.2:
            expected = len(means) - 1 - delta
    assert sharpened(values, window, delta, 1.2) == expected


@pytest.mark.parametrize(
    ("gradients", "said"),
    [
        ([1.0, 0.5, 0.0099], True),
        ([1.0, 0.5, 0.0101], False),
        ([0.5, 1.0, 0.0099], True),  # of the largest, and not of the first
        ([0.0001, 1.0, 0.5], False),  # the last one counts
        ([0.0, 0.0], False),
    ],
)
def test_a_gradient_that_dies(gradients: list[float], said: bool) -> None:
    dying = epochs(gradient=gradients)
    assert advice(dying) == [], "decided: nothing is left to learn"
    for entropy, still_open in ((0.91, True), (0.89, False)):
        lines = advice([{**epoch, "entropy": entropy} for epoch in dying])
        start = "the arch gradient has died while decisions are open"
        assert [line.startswith(start) for line in lines] == [True] * (said and still_open)
    without = [{name: value for name, value in epoch.items() if name != "gradient"} for epoch in dying]
    assert advice([{**epoch, "entropy": 0.95} for epoch in without]) == []


def test_indicators_that_were_not_finite_say_nothing() -> None:
    """They are recorded as null."""
    lost: Any = [1.0] * 11 + [None]
    dead = epochs(entropy=lost, gradient=lost, eigenvalue=[float(2**i) for i in range(11)] + [None], margin=lost)  # type: ignore[list-item]
    assert advice([{**epoch, "parameter_free/cell": None} for epoch in dead], finished=True) == []


def test_decisions_that_stay_open() -> None:
    (line,) = advice(epochs(entropy=[1.0, 0.97]), finished=True)
    assert line.startswith("decisions are open at the end (entropy 0.97 of 1)")
    assert observe.OPEN == 0.9
