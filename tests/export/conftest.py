"""What was exported, imported again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from torch import nn

from nas.export.source.module import write_source
from nas.run import checkpoint
from written import imported

Write = Callable[..., ModuleType]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a network as source, and import what was written."""

    def written(network: nn.Module) -> ModuleType:
        text, tensors = write_source(network, "A network.")
        (tmp_path / "exported.py").write_text(text, encoding="utf-8")
        checkpoint.save_weights(tmp_path / "exported.safetensors", tensors)
        return imported(tmp_path / "exported.py", monkeypatch)

    return written
