from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch


def test_shares_of_a_step_by_kind_of_operator(load_tool: Callable[[str], ModuleType]) -> None:
    measured = load_tool("measured")
    x, weight = torch.randn(4, 16, 64, 64), torch.randn(16, 16, 3, 3)
    found = measured.shares(lambda: torch.relu(torch.conv2d(x, weight)))
    assert sum(found.values()) == pytest.approx(1)
    assert found["convolutions"] > found["other operators"] > 0
    assert found["norms"] == found["poolings"] == 0
