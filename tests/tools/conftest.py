"""The modules of tools/, and data of a few images, for their tests."""

from __future__ import annotations

import gzip
import importlib
import struct
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(scope="module")
def load_tool() -> Callable[[str], ModuleType]:
    """Imports a program of tools/ by its name."""

    def load(name: str) -> ModuleType:
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(TOOLS)
            return importlib.import_module(name)

    return load


@pytest.fixture(scope="session")
def few_images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The section `task.data` of a data set of eight images for training, four for validation and six for the test."""
    folder, rng = tmp_path_factory.mktemp("fashion"), np.random.default_rng(0)
    for part, count in (("train", 12), ("t10k", 6)):
        for kind, array in (
            ("images-idx3", rng.integers(256, size=(count, 8, 8))),
            ("labels-idx1", np.arange(count) % 10),
        ):
            head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            data = gzip.compress(head + array.astype(np.uint8).tobytes())
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(data)
    return {"kind": "fashion-mnist", "root": str(folder), "train": 8, "val": 4}
