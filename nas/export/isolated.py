"""Run an exported Python file in a process that cannot import this package."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from nas.errors import ExportError

_PROGRAM = """\
import importlib.util
import sys

file, folder, *hidden = sys.argv[1:]
for name in hidden:
    sys.modules[name] = None  # an import of it fails

import torch
from torch.utils._pytree import tree_leaves

spec = importlib.util.spec_from_file_location("exported", file)
module = importlib.util.module_from_spec(spec)
sys.modules["exported"] = module
spec.loader.exec_module(module)
network = module.load()
with torch.no_grad():
    outputs = network(*torch.load(f"{folder}/inputs.pt", weights_only=True))
torch.save([leaf for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor)], f"{folder}/outputs.pt")
"""


def outputs(file: Path, inputs: Sequence[Tensor], hidden: Iterable[str]) -> list[Tensor]:
    """Return the output tensors of the network of an exported file, in order.

    Args:
        file: the exported Python file.
        inputs: the inputs of the network.
        hidden: names of packages that the process cannot import.

    Raises:
        ExportError: the process fails; the message ends with its last line.
    """
    with tempfile.TemporaryDirectory() as folder:
        torch.save(list(inputs), Path(folder, "inputs.pt"))
        command = [sys.executable, "-I", "-c", _PROGRAM, str(file.resolve()), folder, *hidden]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ExportError(f"{file}: the exported file does not run by itself: {last}")
        result: list[Tensor] = torch.load(Path(folder, "outputs.pt"), weights_only=True)
        return result
