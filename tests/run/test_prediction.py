from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import toy
from nas.errors import DivergedError
from nas.run.prediction import predict


def test_no_task_writes_what_is_not_finite(tmp_path: Path) -> None:
    class Writing(toy.ToyTask):
        def predict(self, network: nn.Module, source: Path, sink: Path) -> dict[str, Any]:  # type: ignore[override]
            (output,) = network(torch.tensor([float(source.name)]))
            sink.write_text(str(output.item()))
            return {}

    network, sink = nn.ReLU(), tmp_path / "out"
    given: Any = (Writing(toy.ToyConfig()), "writing", network)
    assert predict(*given, Path("2"), sink, {}) == {}
    assert sink.read_text() == "2.0"
    with pytest.raises(DivergedError, match=r"out: the network's output must be finite"):
        predict(*given, Path("inf"), sink, {})
    assert sink.read_text() == "2.0"
    assert not network._forward_hooks
