"""Chains and DAG cells."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.errors import SpaceError
from nas.genotype.file import Genotype
from nas.space.cell import Cell, Chain
from nas.space.chooser import Building, Derived, Described, Relaxed


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


SCALES = {"two": lambda: Scale(2.0), "five": lambda: Scale(5.0)}


def uniform(label: str) -> Tensor:
    return torch.tensor([0.5, 0.5])


def described(build: object) -> Building:
    choose = Described()
    choose.build(build, {})  # type: ignore[arg-type]
    return choose


def derived(build: object, **choices: object) -> nn.Module:
    return Derived(Genotype(space="t", choices=choices)).build(build, {})  # type: ignore[arg-type]


def test_a_chain_is_a_row_of_micro_decisions() -> None:
    choose = described(lambda choose: Chain(choose, "dna", SCALES, length=3))
    assert [(d.label, d.kind, d.candidates) for d in choose.decisions.values()] == [
        (f"dna/{i}", "operation", ("two", "five")) for i in (1, 2, 3)
    ]


@pytest.mark.parametrize(("residual", "expected"), [(False, 20.0), (True, 21.0)])
def test_a_chain_runs_its_operations_in_order(residual: bool, expected: float) -> None:
    chain = derived(
        lambda choose: Chain(choose, "c", SCALES, length=3, residual=residual),
        **{"c/1": "two", "c/2": "two", "c/3": "five"},
    )
    assert torch.equal(chain(torch.ones(2, 3)), torch.full((2, 3), expected))


def test_an_empty_chain_is_the_identity() -> None:
    chain = derived(lambda choose: Chain(choose, "c", SCALES, length=0))
    assert torch.equal(chain(torch.ones(2)), torch.ones(2))


def test_a_cell_has_a_decision_on_every_edge_and_node() -> None:
    decisions = described(lambda choose: Cell(choose, "n", SCALES, nodes=3, inputs=2, keep=2)).decisions
    assert {label: (d.kind, d.candidates, d.keep) for label, d in decisions.items() if "<-" not in label} == {
        "n/2": ("inputs", (0, 1), 2),
        "n/3": ("inputs", (0, 1, 2), 2),
        "n/4": ("inputs", (0, 1, 2, 3), 2),
    }
    edges = {label: d for label, d in decisions.items() if "<-" in label}
    assert list(edges) == [f"n/{node}<-{source}" for node in (2, 3, 4) for source in range(node)]
    assert all(d.candidates == ("two", "five") for d in edges.values())
    assert decisions["n/3<-1"].conditions == (("n/3", 1),)


def test_all_in_edges_stay_where_keep_is_none() -> None:
    decisions = described(lambda choose: Cell(choose, "n", SCALES, nodes=2, inputs=1, keep=None)).decisions
    assert [decisions[f"n/{node}"].keep for node in (1, 2)] == [1, 2]


def test_a_supernet_cell_sums_all_mixed_in_edges() -> None:
    cell = Relaxed(uniform).build(lambda choose: Cell(choose, "n", SCALES, nodes=2, inputs=2, keep=1), {})
    a, b = torch.tensor([[1.0]]), torch.tensor([[10.0]])
    node = 3.5 * (a + b)
    assert torch.equal(cell(a, b), torch.cat([node, 3.5 * (a + b + node)], dim=1))


def test_a_derived_cell_sums_the_kept_in_edges() -> None:
    choices = {"n/2": (1,), "n/2<-1": "five", "n/3": (0, 2), "n/3<-0": "two", "n/3<-2": "two"}

    def build(choose: Building) -> nn.Module:
        return Cell(choose, "n", SCALES, nodes=2, inputs=2, keep=2, output="last")

    with pytest.raises(SpaceError, match=r"'n/2' must be 2 of the sources 0, 1, got \[1\]"):
        derived(build, **choices)
    choices.update({"n/2": (0, 1), "n/2<-0": "two"})
    a, b = torch.tensor([[1.0]]), torch.tensor([[10.0]])
    assert derived(build, **choices)(a, b).item() == 2 * 1 + 2 * (2 * 1 + 5 * 10)


def test_edges_can_have_candidates_of_their_own() -> None:
    def operations(source: int, node: int) -> dict[str, object]:
        return {"reduce": lambda: Scale(0.5)} if source < 1 else SCALES

    decisions = described(lambda choose: Cell(choose, "n", operations, nodes=2, inputs=1)).decisions  # type: ignore[arg-type]
    assert decisions["n/1<-0"].candidates == decisions["n/2<-0"].candidates == ("reduce",)
    assert decisions["n/2<-1"].candidates == ("two", "five")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"nodes": 0}, "'nodes' of 'n' must be .* at least 1, got 0"),
        ({"nodes": 2.0}, r"'nodes' of 'n' must be .* at least 1, got 2\.0"),
        ({"nodes": None}, "'nodes' of 'n' must be .* at least 1, got None"),
        ({"inputs": 0}, "'inputs' of 'n' must be .* at least 1, got 0"),
        ({"inputs": "2"}, "'inputs' of 'n' must be .* at least 1, got '2'"),
        ({"keep": 0}, "'keep' of 'n/2' must be .* at least 1, got 0"),
        ({"output": "sum"}, "'output' of 'n' must be 'concat' or 'last', got 'sum'"),
        ({"operations": [nn.ReLU]}, "the candidates of 'n/2<-0' must be a mapping .*, got list"),
        ({"operations": nn.ReLU()}, "the candidates of 'n/2<-0' must be a mapping .*, got the module ReLU"),
        ({"operations": {"x": nn.ReLU()}}, "candidate 'x' of 'n/2<-0' must be a function .*, got the module ReLU"),
        ({"operations": lambda: SCALES}, r"'operations' of 'n' must be a function of \(source, node\): too many"),
        ({"operations": lambda source, node: None}, "the candidates of 'n/2<-0' must be a mapping .*, got NoneType"),
    ],
)
def test_arguments_of_a_cell(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        described(lambda choose: Cell(choose, "n", **{"operations": SCALES, **arguments}))


@pytest.mark.parametrize("length", [-1, 1.0, "2", None])
def test_the_length_of_a_chain(length: Any) -> None:
    with pytest.raises(SpaceError, match=f"'length' of 'c' must .* at least 0, got {length!r}"):
        described(lambda choose: Chain(choose, "c", SCALES, length=length))


def test_a_cell_counts_its_inputs() -> None:
    cell = Relaxed(uniform).build(lambda choose: Cell(choose, "n", SCALES, inputs=2), {})
    with pytest.raises(SpaceError, match="cell 'n' takes 2 inputs, got 1"):
        cell(torch.ones(1, 1))
