from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from nas.hypergradient.response import Loss, Parameters, constants, differentiate, leaves, summed_gradient


def part(factor: float) -> object:
    def loss(own: Parameters, others: Parameters) -> Tensor:
        return factor * own["w"].square().sum() * others["a"] + torch.rand(()) * own["w"].sum()

    return loss


@contextmanager
def seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        yield


def test_a_loss_is_the_mean_of_its_parts_with_the_same_random_numbers_each_time() -> None:
    loss = Loss([part(1.0), part(5.0)], seeded)  # type: ignore[list-item]
    own, others = leaves({"w": torch.tensor([1.0, -2.0])}), leaves({"a": torch.tensor(0.5)})
    before = torch.get_rng_state()
    value = loss(own, others)
    with seeded():
        noise = (torch.rand(()) + torch.rand(())) / 2
    assert value.item() == pytest.approx((3 * 5 * 0.5 + noise * -1).item())
    inputs = [own["w"], others["a"]]
    for found, expected in zip(loss.gradient(own, others, inputs), torch.autograd.grad(value, inputs), strict=True):
        torch.testing.assert_close(found, expected)
        assert not found.requires_grad
    assert torch.equal(torch.get_rng_state(), before)


def test_gradients_are_zero_where_nothing_depends() -> None:
    x, y = (torch.ones(2, requires_grad=True) for _ in range(2))
    assert differentiate(x.sum(), [x, y])[1].tolist() == [0, 0]
    assert differentiate(torch.zeros(()), [x])[0].tolist() == [0, 0]
    assert differentiate([], [x], [])[0].tolist() == [0, 0]
    assert differentiate([torch.zeros(2), 3 * x], [x], [torch.ones(2), torch.ones(2)])[0].tolist() == [3, 3]
    assert differentiate(x.sum(), []) == []


def test_the_gradient_of_a_sum_is_that_of_all_outputs_together() -> None:
    x, y, z = (torch.tensor([v, -v], requires_grad=True) for v in (1.0, 2.0, 3.0))

    def outputs() -> list[Tensor]:
        return [x.square().sum(), (x * y).sum(), torch.zeros(()), y.pow(3).sum()]

    expected = torch.autograd.grad(sum(outputs()), [x, y])
    found = summed_gradient(iter(outputs()), [x, y, z])
    torch.testing.assert_close(found, [*expected, torch.zeros(2)])
    assert summed_gradient(outputs(), []) == []


def test_leaves_and_constants_share_values_and_no_graph() -> None:
    made = {"x": torch.ones(2, requires_grad=True) * 2}
    assert leaves(made)["x"].is_leaf
    assert leaves(made)["x"].requires_grad
    assert not constants(made)["x"].requires_grad
