"""What was exported, imported again."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from torch import nn

from nas import checkpoint
from nas.export.source import source

Write = Callable[..., ModuleType]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a network as source, and import what was written."""

    def written(network: nn.Module) -> ModuleType:
        text, tensors = source(network, "A network.")
        (tmp_path / "written.py").write_text(text, encoding="utf-8")
        checkpoint.save_weights(tmp_path / "written.safetensors", tensors)
        spec = importlib.util.spec_from_file_location("written", tmp_path / "written.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "written", module)
        spec.loader.exec_module(module)
        return module

    return written
