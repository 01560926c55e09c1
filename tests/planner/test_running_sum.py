from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nas.planner.running_sum import RunningSum


def test_a_total_leaves_its_terms_as_they_are_and_passes_them_the_gradient() -> None:
    terms = [torch.full((2,), float(i), requires_grad=True) for i in range(1, 5)]
    total = RunningSum(terms).sum()
    assert total.tolist() == [10, 10]
    assert [term.tolist() for term in terms] == [[i, i] for i in range(1, 5)]
    assert [g.tolist() for g in torch.autograd.grad(total, terms, torch.tensor([1.0, 2.0]))] == [[1, 2]] * 4


def test_a_total_is_made_in_one_place() -> None:
    total = RunningSum([torch.ones(2), torch.ones(2)])
    place = total.sum().data_ptr()
    total.add(torch.ones(2))
    assert total.sum().data_ptr() == place


def test_a_total_has_the_widest_type_of_its_terms() -> None:
    narrow = torch.ones(2, dtype=torch.bfloat16)
    total = RunningSum([narrow, narrow, torch.full((2,), 2**-10)]).sum()
    assert total.dtype == torch.float32
    assert total.tolist() == [2 + 2**-10] * 2


def test_terms_of_which_only_the_last_are_batched() -> None:
    def sum_with(term: Tensor) -> Tensor:
        return RunningSum([torch.ones(2), torch.ones(2), term, term]).sum()

    assert torch.vmap(sum_with)(torch.arange(6.0).view(3, 2)).tolist() == [[2, 4], [6, 8], [10, 12]]


def test_a_total_of_nothing() -> None:
    with pytest.raises(ValueError, match="no tensors"):
        RunningSum().sum()
