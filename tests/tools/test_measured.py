from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

TOOLS = Path(__file__).parents[2] / "tools"


def test_shares_of_a_step_by_kind_of_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(TOOLS)
    measured = importlib.import_module("measured")
    x, weight = torch.randn(4, 16, 64, 64), torch.randn(16, 16, 3, 3)
    found = measured.shares(lambda: torch.relu(torch.conv2d(x, weight)))
    assert sum(found.values()) == pytest.approx(1)
    assert found["convolutions"] > found["other operators"] > 0
    assert found["norms"] == found["poolings"] == 0
