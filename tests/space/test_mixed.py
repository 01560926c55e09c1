"""Mixed and decided modules, against sums written out."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from nas.errors import SpaceError
from nas.space.mixed import ChosenDepth, ChosenWidth, Decided, MixedDepth, MixedOperation, MixedWidth, Node


class Linear(nn.Module):
    """x -> factor * x + shift"""

    def __init__(self, factor: float, shift: float = 0.0) -> None:
        super().__init__()
        self.factor, self.shift = factor, shift

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x + self.shift


def weights(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.double)


X = torch.arange(24, dtype=torch.double).reshape(2, 4, 3)


def test_a_mixed_operation_mixes_by_its_label() -> None:
    mixing = {"a": weights(0.25, 0.75), "b": weights(1.0, 0.0)}.__getitem__
    candidates = {"x": Linear(2), "y": Linear(-1, 5)}
    assert torch.equal(MixedOperation("a", candidates, mixing)(X), 0.25 * 2 * X + 0.75 * (5 - X))
    assert torch.equal(MixedOperation("b", candidates, mixing)(X), 2 * X)


def test_a_mixed_operation_passes_all_inputs_on() -> None:
    class Difference(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x - y

    assert torch.equal(MixedOperation("a", {"d": Difference()}, lambda label: weights(1.0))(X, X / 2), X / 2)


def test_a_decided_operation_runs_its_candidate() -> None:
    decided = Decided("a", {"y": Linear(-1, 5)})
    assert torch.equal(decided(X), 5 - X)
    assert repr(decided).startswith("Decided(\n  label='a'\n  (y): Linear(")


@given(st.sets(st.integers(1, 3)).flatmap(lambda smaller: st.permutations([*smaller, 4])))
def test_a_mixed_width_mixes_masks(sizes: list[int]) -> None:
    values = torch.linspace(0.1, 0.7, len(sizes), dtype=torch.double)
    masks = [(torch.arange(4) < size).double().view(1, 4, 1) for size in sizes]
    expected = sum(weight * (mask * X) for weight, mask in zip(values, masks, strict=True))
    width = MixedWidth("w", sizes, lambda label: values)
    assert width.channels == 4
    assert torch.allclose(width(X), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("shape", "dim"),
    [((2, 4), 1), ((2, 4, 3), 1), ((2, 4, 3, 5), 1), ((2, 4, 4, 4, 6), -4), ((2, 3, 4), 2), ((2, 4, 4), -1)],
)
def test_a_width_is_that_of_one_dimension(shape: tuple[int, ...], dim: int) -> None:
    width = MixedWidth("w", (1, 2, 4), lambda label: weights(0.0, 1.0, 0.0), dim)
    x = torch.ones(shape, dtype=torch.double)
    assert torch.equal(width(x).narrow(dim, 0, 2), x.narrow(dim, 0, 2))
    assert width(x).narrow(dim, 2, 2).abs().sum() == 0
    narrow = x.narrow(dim, 0, 2)
    assert ChosenWidth("w", 2, dim)(narrow) is narrow


@pytest.mark.parametrize(
    ("x", "dim", "found"),
    [
        (torch.ones(2, 4, 3), -1, r"4 channels in dimension -1, got one of shape \(2, 4, 3\)"),
        (torch.ones(2, 3, 4), 1, r"4 channels in dimension 1, got one of shape \(2, 3, 4\)"),
        (torch.ones(2, 1, 5), 1, r"got one of shape \(2, 1, 5\)"),  # which would broadcast
        (torch.ones(4), 1, r"got one of shape \(4,\)"),
        ((torch.ones(2, 4),), 1, "got tuple"),
        (torch.tensor(1.0), -1, "got Tensor"),
    ],
)
def test_a_width_refuses_other_tensors(x: object, dim: int, found: str) -> None:
    for width in (MixedWidth("w", (2, 4), lambda label: weights(0.5, 0.5), dim), ChosenWidth("w", 4, dim)):
        with pytest.raises(SpaceError, match=f"width 'w' must get a tensor with .*{found}.*dim="):
            width(x)  # type: ignore[arg-type]


def test_a_width_follows_dtype_and_leaves_no_state() -> None:
    width = MixedWidth("w", (1, 2), lambda label: torch.tensor([0.5, 0.5], dtype=torch.bfloat16))
    assert width(torch.ones(1, 2, dtype=torch.bfloat16)).tolist() == [[1.0, 0.5]]
    assert width.state_dict() == {}


@pytest.mark.parametrize("counts", [(1, 3), (3, 1, 2), (2,)])
def test_a_mixed_depth_mixes_the_states_after_each_count(counts: tuple[int, ...]) -> None:
    blocks = [Linear(2, 1), Linear(3, -1), Linear(-1, 2)][: max(counts)]
    states = list(itertools.accumulate(blocks, lambda x, block: block(x), initial=X))
    values = torch.linspace(0.1, 0.7, len(counts), dtype=torch.double)
    expected = sum(weight * states[count] for weight, count in zip(values, counts, strict=True))
    assert torch.allclose(MixedDepth("d", counts, blocks, lambda label: values)(X), expected, rtol=1e-12)
    assert torch.equal(ChosenDepth("d", blocks)(X), states[-1])


def test_a_node_sums_its_kept_in_edges() -> None:
    node = Node("n/3", {0: Linear(2), 2: Linear(3), 1: Linear(5)})
    states = [X, X + 1, X + 2]
    assert node.kept == (0, 2, 1)
    assert torch.equal(node(states), 2 * X + 3 * (X + 2) + 5 * (X + 1))
    node.kept = (1,)
    assert torch.equal(node(states), 5 * (X + 1))


def test_mixed_and_decided_modules_name_weights_alike() -> None:
    def mixing(label: str) -> Tensor:
        return weights(0.5, 0.5)

    def make() -> nn.Module:
        return nn.Linear(2, 2)

    pairs: list[tuple[nn.Module, nn.Module]] = [
        (MixedOperation("a", {"x": make(), "y": make()}, mixing), Decided("a", {"y": make()})),
        (MixedDepth("a", (1, 3), [make(), make(), make()], mixing), ChosenDepth("a", [make()])),
        (MixedWidth("a", (1, 3), mixing), ChosenWidth("a", 1)),
        (Node("a", {0: make(), 1: make()}), Node("a", {1: make()})),
    ]
    for mixed, decided in pairs:
        assert decided.state_dict().keys() <= mixed.state_dict().keys()


def test_a_mixed_operation_does_not_own_its_mixing() -> None:
    class Owner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logits = nn.Parameter(torch.zeros(1))

        def __call__(self, label: str) -> Tensor:
            return self.logits

    assert not list(MixedOperation("a", {"x": nn.Identity()}, Owner()).parameters())


MODULES = [
    Decided("a", {"x": nn.Identity()}),
    MixedOperation("a", {"x": nn.Identity()}, lambda label: weights(1.0)),
    MixedWidth("a", (3,), lambda label: weights(1.0)),
    MixedDepth("a", (0,), [], lambda label: weights(1.0)),
    ChosenWidth("a", 3),
    ChosenDepth("a", []),
    Node("a", {}),
]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: type(module).__name__)
def test_a_space_cannot_branch_on_what_it_chose(module: Decided) -> None:
    with pytest.raises(SpaceError, match=r"'a' .* condition"):
        _ = nn.Identity() if module else None
    for other in ("x", 3, (0,), np.int64(3)):
        with pytest.raises(SpaceError, match=re.escape(f"'a' was compared with {other!r}")):
            _ = module == other
        with pytest.raises(SpaceError, match="'a' was compared"):
            _ = module != other
    with pytest.raises(SpaceError, match="'a' was compared"):
        _ = "x" in [module]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: type(module).__name__)
def test_modules_equal_themselves_alone(module: Decided) -> None:
    assert module == module
    assert module != nn.Identity()
    assert len({module, module}) == 1
    assert module in [None, nn.Identity(), module]
    assert module is not None
    assert module not in [None, object()]
