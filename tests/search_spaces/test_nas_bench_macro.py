"""The NAS-Bench-Macro space, and its blocks. Its sizes are compared with the benchmark's in test_tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from nas.testing import SearchSpaceTests
from search_spaces.nas_bench_macro import InvertedResidual, nas_bench_macro_space, shortcut


class TestNASBenchMacro(SearchSpaceTests):
    space = nas_bench_macro_space
    options: ClassVar[Mapping[str, Any]] = {"channels": 1, "features": 4}
    trials = 2

    def example_input(self) -> Tensor:
        return torch.randn(2, 3, 9, 8)


def test_there_are_eight_decisions_of_three_blocks() -> None:
    decisions = nas_bench_macro_space.describe(channels=1, features=1).decisions
    assert list(decisions) == [f"layer_{number}" for number in range(1, 9)]
    assert {each.candidates for each in decisions.values()} == {("identity", "mb3_k3", "mb6_k5")}


@pytest.mark.parametrize(("out", "stride", "residual"), [(4, 1, True), (8, 2, False), (8, 1, False), (4, 2, False)])
def test_blocks_add_their_input_if_the_shape_stays(out: int, stride: int, residual: bool) -> None:
    x = torch.randn(2, 4, 7, 6)
    block = InvertedResidual(4, out, stride, expansion=3, kernel=5).eval()
    shape = (2, out, -(-7 // stride), -(-6 // stride))
    assert block(x).shape == shape == shortcut(4, out, stride)(x).shape
    assert torch.equal(block(x), block.body(x) + x if residual else block.body(x))
    assert isinstance(shortcut(4, out, stride), nn.Identity) == residual
    first, _, _, depthwise, *_ = block.body
    assert first.out_channels == depthwise.groups == 12
    assert depthwise.kernel_size == (5, 5)
