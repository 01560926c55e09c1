"""ONNX files: what onnxruntime computes from them, and the operation that ONNX lacks."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from nas.errors import ExportError
from nas.export import onnx, program

runtime = pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
pytest.importorskip("onnxscript", reason="the extra `export` is not installed")

EXAMPLE = (torch.zeros(1, 3, 8, 8),)


class Pair(NamedTuple):
    picture: Tensor
    mean: Tensor


class Halves(nn.Module):
    """Uses a split, a pooling and a resize."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)

    def forward(self, frame: Tensor) -> Pair:
        a, b = self.conv(frame).chunk(2, 1)
        return Pair(a * b.sigmoid(), b.mean((2, 3)))


class Singular(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.svdvals(x)


def test_a_file_takes_any_size(tmp_path: Path) -> None:
    network = Halves().eval()
    made = program.export(network, EXAMPLE)
    onnx.save(network, made, tmp_path / "net.onnx", "space: none\n")
    assert onnx.check(network, made, tmp_path / "net.onnx", EXAMPLE) < 1e-5
    session = runtime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["frame"]
    assert [value.name for value in session.get_outputs()] == ["picture", "mean"]
    assert session.get_modelmeta().custom_metadata_map["genotype"] == "space: none\n"
    x = torch.randn(3, 3, 5, 21)
    picture, mean = session.run(None, {"frame": x.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(picture), network(x).picture, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(torch.from_numpy(mean), network(x).mean, atol=1e-5, rtol=1e-5)


def test_what_differs_is_refused(tmp_path: Path) -> None:
    network = Halves().eval()
    made = program.export(network, EXAMPLE)
    onnx.save(network, made, tmp_path / "net.onnx", "")
    with torch.no_grad():
        network.conv.bias[0] += 0.1  # type: ignore[index]  # it has one
    with pytest.raises(ExportError, match=r"outputs differ from the network's by 0\.\d+, more than 0\.0001"):
        onnx.check(network, made, tmp_path / "net.onnx", EXAMPLE)


def test_the_operation_that_onnx_lacks_is_named(tmp_path: Path) -> None:
    network = nn.Sequential(nn.ReLU(), nn.Sequential(Singular()))
    made = program.export(network, EXAMPLE)
    with pytest.raises(ExportError, match=r"^1\.0 \(Singular\) uses aten\.\S*svd\S*, which ONNX .* lacks"):
        onnx.save(network, made, tmp_path / "net.onnx", "")
    assert not list(tmp_path.iterdir())
