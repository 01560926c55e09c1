"""ONNX files: what onnxruntime computes from them, and the operation that ONNX lacks."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from nas.errors import ExportError
from nas.export import onnx, program
from nas.export.exporting import export
from nas.genotype.file import Genotype

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


class Branches(nn.Module):
    """Poolings of several sizes; pictures of 8x8 alone, since one of them is flattened as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.whole = nn.Linear(3 * 8 * 8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.whole(x.flatten(1)) + nn.functional.adaptive_avg_pool2d(x, 3).mean((1, 2, 3))[:, None]


HEAD = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5))


@pytest.mark.parametrize(
    ("network", "sizes", "shapes"),
    [
        (HEAD, "any batch size, any height and width", [(1, 3, 5, 7), (3, 3, 20, 4), (1, 3, 8, 8), (2, 3, 1, 9)]),
        (nn.Conv1d(3, 2, 3), "any batch size", [(1, 3, 8), (3, 3, 8)]),
        (nn.Linear(8, 2), "any batch size", [(1, 8), (3, 8)]),
        (Branches(), "any batch size, the height and width of the example alone", [(1, 3, 8, 8), (3, 3, 8, 8)]),
        (
            nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 12, 1), nn.PixelShuffle(2)),
            "any batch size, heights and widths in multiples of 2",
            [(1, 3, 2, 6), (3, 3, 4, 8)],
        ),
    ],
)
def test_sizes_that_a_file_takes(network: nn.Module, sizes: str, shapes: list[tuple[int, ...]], tmp_path: Path) -> None:
    example = (torch.zeros(1, *shapes[0][1:]) if len(shapes[0]) < 4 else EXAMPLE[0],)
    genotype = Genotype(space="none", choices={})
    network.eval()
    assert export(network, genotype, example, tmp_path / "net.onnx", "onnx").facts.startswith(f"{sizes}; greatest")
    session = runtime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    for shape in shapes:
        x = torch.randn(shape)
        (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), network(x), atol=1e-5, rtol=1e-5)


def test_what_onnxruntime_cannot_run_is_named_and_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's own form of the pooling holds the positions of the size that it was traced with."""
    monkeypatch.setattr(onnx, "DECOMPOSED", {})
    made = program.export(HEAD.eval(), EXAMPLE)
    onnx.save(HEAD, made, tmp_path / "net.onnx", "")
    with pytest.raises(
        ExportError, match=r"^1 \(AdaptiveAvgPool2d\) uses GatherND, which onnxruntime cannot run: .*index"
    ):
        onnx.check(HEAD, made, tmp_path / "net.onnx", EXAMPLE)
    written = export(HEAD, Genotype(space="none", choices={}), EXAMPLE, tmp_path / "net.onnx", "onnx")
    assert written.facts.startswith("any batch size, the height and width of the example alone;")


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
