"""What an export refuses once it has looked at what it would write; nothing is left on the disk then."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import crafted
import toy
from nas.errors import ConfigError, ExportError
from nas.export.exporting import SUFFIXES, Format, export
from nas.genotype.file import Genotype

GENOTYPE = Genotype(space="toy", options={"channels": 4}, choices=toy.CHEAPEST)
EXAMPLE = (torch.zeros(1, 2, 5, 5),)


class Random(nn.Module):
    """Returns something else at each call."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


class Patched(nn.Module):
    """Calls what this process alone has put into torch."""

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = torch.made_here(x)  # type: ignore[attr-defined]
        return result


def leaky() -> nn.Module:
    """Layers of one class that derives from one of torch; one of them has an attribute more."""
    network = nn.Sequential(crafted.Leaky(2), crafted.Leaky(2))
    network[1].register_parameter("other", nn.Parameter(torch.zeros(1)))
    return network


@pytest.mark.parametrize(
    ("make", "format", "message"),
    [
        (Random, "source", r"network\.py .* got 0\.\d+"),
        (Random, "pt2", r"the program's outputs differ from the network's by 0\.\d+, more than 1e-05"),
        (Patched, "source", r"network\.py: the exported file does not run by itself: .*no attribute 'made_here'"),
        (leaky, "source", "modules of class 'Leaky' have different attributes: give all of them the same"),
    ],
)
def test_a_file_that_is_not_the_network(
    make: Callable[[], nn.Module], format: Format, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "made_here", torch.relu, raising=False)
    with pytest.raises(ExportError, match=message) as caught:
        export(make().eval(), GENOTYPE, EXAMPLE, tmp_path / f"network{SUFFIXES[format]}", format)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_package_that_is_missing(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for needed in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(needed, reason="the extra `export` is not installed")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"{package}.*: pip install 'tmics-nas\[export\]'"):
        export(nn.ReLU(), GENOTYPE, EXAMPLE, tmp_path / "network.onnx", "onnx")
    assert not list(tmp_path.iterdir())


def test_an_import_from_the_package_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "around"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "math.py").write_text("import torch\n")  # of the name of a module that an export may import
    (folder / "inner.py").write_text(
        "from torch import nn\n\n\nclass Inner(nn.Module):\n    def forward(self, x):\n"
        "        from .math import torch\n\n        return torch.relu(x)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    inner = importlib.import_module("around.inner").Inner()
    with pytest.raises(ExportError, match=r"'Inner' of around\.inner imports '\.math' when it runs"):
        export(inner, GENOTYPE, EXAMPLE, tmp_path / "network.py", "source")
    monkeypatch.delitem(sys.modules, "around.inner")
    monkeypatch.delitem(sys.modules, "around")


@pytest.mark.parametrize("format", SUFFIXES)
def test_a_name_that_does_not_fit_the_format(format: Format, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"format '{format}' .*\{SUFFIXES[format]}, got"):
        export(nn.ReLU(), GENOTYPE, EXAMPLE, tmp_path / "network.bin", format)
    assert not list(tmp_path.iterdir())
