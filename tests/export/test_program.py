"""Programs of torch.export: equal outputs at any size, without our code; the module that cannot be traced is named."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from nas.errors import ExportError
from nas.export import program


class Pair(NamedTuple):
    picture: Tensor
    mean: Tensor


class Sharpen(nn.Module):
    """Pads to whole multiples of 4 and back, so that sizes matter."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, picture: Tensor) -> Pair:
        height, width = picture.shape[-2:]
        padded = nn.functional.pad(picture, (0, -width % 4, 0, -height % 4), mode="replicate")
        small = nn.functional.avg_pool2d(self.conv(padded), 4)
        out = nn.functional.interpolate(small, scale_factor=4)[..., :height, :width]
        return Pair(picture + out, out.mean((1, 2, 3)))


class Fixed(nn.Sequential):
    """Takes pictures of 6x6 alone."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(32, 2))


class Single(nn.Module):
    """Its code asks for the batch size."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if len(x) == 1 else x * 3


class Stubborn(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(x.numpy() + 1)


EXAMPLE = (torch.zeros(1, 3, 8, 8),)


def test_any_batch_height_and_width() -> None:
    network = Sharpen().eval()
    made = program.export(network, EXAMPLE)
    assert made.sizes == "any batch size, any height and width"
    assert made.outputs == ["picture", "mean"]
    assert program.check(network, made, EXAMPLE) == 0
    module = made.exported.module()
    for shape in ((1, 3, 5, 7), (4, 3, 8, 12), (2, 3, 31, 16)):
        x = torch.randn(shape)
        found, expected = module(x), network(x)
        assert torch.equal(found["picture"], expected.picture)
        assert torch.equal(found["mean"], expected.mean)


def test_a_network_of_one_size_keeps_it() -> None:
    network = Fixed().eval()
    example = (torch.zeros(1, 3, 6, 6),)
    made = program.export(network, example)
    assert made.sizes == "batches of 1, the height and width of the example alone"
    assert made.outputs == []
    assert program.check(network, made, example) == 0


def test_a_network_that_asks_for_its_batch_size_gets_batches_of_one() -> None:
    network = Single()
    made = program.export(network, EXAMPLE)
    assert made.sizes == "batches of 1, any height and width"
    assert program.check(network, made, EXAMPLE) == 0
    x = torch.rand(1, 3, 4, 9)
    assert torch.equal(made.exported.module()(x), 2 * x)


def test_what_differs_is_refused() -> None:
    network = Sharpen().eval()
    made = program.export(copy.deepcopy(network), EXAMPLE)
    with torch.no_grad():
        network.conv.weight += 1e-3
    with pytest.raises(ExportError, match=r"outputs differ from the network's by 0\.\d+, more than 1e-05"):
        program.check(network, made, EXAMPLE)


def test_the_module_that_cannot_be_traced_is_named() -> None:
    with pytest.raises(ExportError, match=r"^1\.0 \(Stubborn\) cannot be traced: \S+"):
        program.export(nn.Sequential(nn.ReLU(), nn.Sequential(Stubborn())), EXAMPLE)


@pytest.mark.slow
def test_the_file_runs_without_our_code(tmp_path: Path) -> None:
    network = Sharpen().eval()
    program.save(program.export(network, EXAMPLE), tmp_path / "net.pt2", "space: none\n")
    x = torch.rand(1, 3, 9, 10)
    torch.save(x, tmp_path / "x.pt")
    code = """
import sys, torch
sys.modules["nas"] = sys.modules["tmics_space"] = None
extra = {"genotype.yaml": ""}
module = torch.export.load("net.pt2", extra_files=extra).module()
assert extra["genotype.yaml"] == "space: none\\n", extra
torch.save(module(torch.load("x.pt", weights_only=True))["picture"].detach(), "y.pt")
"""
    subprocess.run([sys.executable, "-I", "-W", "ignore", "-c", code], cwd=tmp_path, check=True)
    assert torch.equal(torch.load(tmp_path / "y.pt", weights_only=True), network(x).picture)
