from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nas.kernels.evaluation import Places, buffers_move, copied, discarding, places, replaced, unmoved


class Counting(nn.Module):
    """Counts its calls in buffers of several types."""

    count: Tensor
    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.register_buffer("seen", torch.zeros(2, dtype=torch.bool))

    def forward(self) -> None:
        self.count.add_(1)
        self.seen.logical_not_()


def buffers(*modules: nn.Module) -> Places:
    return places(dict(nn.ModuleList(modules).named_buffers()), modules)


def test_in_the_context_copies_move() -> None:
    module = Counting()
    module()
    count, seen = module.count, module.seen
    with unmoved(buffers(module)):
        module()
        assert (module.count.item(), module.seen.tolist()) == (2, [False, False])
    assert module.count is count
    assert module.seen is seen
    assert (count.item(), seen.tolist()) == (1, [True, True])


def test_they_are_back_after_an_error_too() -> None:
    module = Counting()
    count = module.count

    def failing() -> None:
        with unmoved(buffers(module)):
            module()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert module.count is count
    assert count.item() == 0


def test_tied_buffers_stay_tied() -> None:
    first, second = Counting(), Counting()
    second.register_buffer("count", first.count)
    with unmoved(buffers(first, second)):
        assert first.count is second.count
        first()
        assert second.count.item() == 1
    assert first.count is second.count
    assert first.count.item() == 0


def test_copies_are_equal_and_independent() -> None:
    tensors = {
        "a": torch.arange(3.0),
        "b": torch.tensor([True, False]),
        "c": torch.full((2,), torch.nan),
        "d": torch.ones(2),
    }
    copies = copied(tensors)
    for tensor in tensors.values():
        tensor.zero_()
    assert list(copies) == list(tensors)
    assert copies["a"].tolist() == [0, 1, 2]
    assert copies["b"].tolist() == [True, False]
    assert copies["c"].isnan().all()
    assert copies["d"].tolist() == [1, 1]


def test_places_of_tied_and_of_missing_tensors() -> None:
    first, second, other = nn.Linear(2, 2), nn.Linear(2, 2, bias=False), nn.Linear(2, 2)
    second.weight = first.weight
    found = places({"w": first.weight, "b": first.bias}, [first, second, other])
    assert [(name, key) for name, _, key in found] == [("w", "weight"), ("b", "bias"), ("w", "weight")]
    assert [table for _, table, _ in found] == [first._parameters, first._parameters, second._parameters]


def test_parameters_are_replaced_for_a_while() -> None:
    first = nn.Linear(2, 2)
    weight, x = first.weight, torch.ones(1, 2)
    value = torch.zeros(2, 2, requires_grad=True)
    with replaced(places({"w": weight}, [first]), {"w": value}):
        out = first(x)
    assert torch.equal(out, first.bias.view(1, 2))
    assert first.weight is weight
    assert torch.autograd.grad(out.sum(), value)[0].tolist() == [[1, 1], [1, 1]]


def test_buffers_need_not_move_where_they_are_thrown_away() -> None:
    assert buffers_move()
    with unmoved([]):
        assert not buffers_move()
        with discarding():
            pass
        assert not buffers_move()
    assert buffers_move()
