from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nas.probing import Places, copied, unmoved


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


def places(module: Counting) -> Places:
    return [(name, module._buffers, name) for name in ("count", "seen")]


def test_in_the_context_copies_move() -> None:
    module = Counting()
    module()
    count, seen = module.count, module.seen
    with unmoved(places(module)):
        module()
        assert (module.count.item(), module.seen.tolist()) == (2, [False, False])
    assert module.count is count
    assert module.seen is seen
    assert (count.item(), seen.tolist()) == (1, [True, True])


def test_they_are_back_after_an_error_too() -> None:
    module = Counting()
    count = module.count

    def failing() -> None:
        with unmoved(places(module)):
            module()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert module.count is count
    assert count.item() == 0


def test_tied_buffers_stay_tied() -> None:
    first, second = Counting(), Counting()
    second.register_buffer("count", first.count)
    tied: Places = [("count", first._buffers, "count"), ("count", second._buffers, "count")]
    with unmoved(tied):
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
