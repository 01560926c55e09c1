"""Programs of torch.export: equal outputs at any size, without our code; the module that cannot be traced is named."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from nas.errors import DivergedError, ExportError
from nas.export import program
from nas.export.equality import greatest_difference
from nas.export.exporting import SUFFIXES, export
from nas.genotype.file import Genotype


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


class Halving(nn.Module):
    """Halves its pictures twice and adds what it saw on the way, as a UNet does: sides are multiples of 4."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(4, 3, 2, 2), nn.ConvTranspose2d(4, 4, 2, 2)])

    def forward(self, x: Tensor) -> Tensor:
        half = self.down[0](x)
        return x + self.up[0](half + self.up[1](self.down[1](half).relu()))


class Parity(nn.Module):
    """Takes any sides, in another way if they are odd: traced as such it would take odd ones alone."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] % 2 or x.shape[-2] % 2:
            return 2 * x
        return 3 * nn.functional.pixel_shuffle(nn.functional.pixel_unshuffle(x, 2), 2)


class Attending(nn.Module):
    """Asks for the batch size in a way that does not bind it: attention takes another path for one item."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        return scale * self.attention(x, x, x, need_weights=False)[0]


class Conditioned(nn.Module):
    """A picture and a vector for each item of the batch; `steps` are whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(4, 3)

    def forward(self, picture: Tensor, steps: Tensor) -> Tensor:
        return picture * self.embed(steps).sum(1)[..., None, None]


SIZES: list[tuple[Callable[[], nn.Module], list[tuple[int, ...]], str, list[list[tuple[int, ...]]]]] = [
    (lambda: nn.Linear(4, 3), [(1, 4)], "any batch size", [[(1, 4)], [(5, 4)]]),
    (lambda: nn.Conv1d(3, 4, 3), [(1, 3, 9)], "any batch size", [[(1, 3, 9)], [(2, 3, 9)]]),
    (Attending, [(1, 5, 8), (1,)], "any batch size", [[(1, 5, 8), (1,)], [(3, 5, 8), (1,)]]),
    (
        Fixed,
        [(1, 3, 6, 6)],
        "any batch size, the height and width of the example alone",
        [[(1, 3, 6, 6)], [(3, 3, 6, 6)]],
    ),
    (Single, [(1, 3, 8, 8)], "batches of 1, any height and width", [[(1, 3, 4, 9)]]),
    (Single, [(1, 3)], "batches of 1", [[(1, 3)]]),
    (
        Halving,
        [(1, 3, 16, 8)],
        "any batch size, heights and widths in multiples of 4",
        [[(1, 3, 4, 12)], [(3, 3, 8, 40)]],
    ),
    (Parity, [(1, 3, 8, 8)], "any batch size, heights and widths in multiples of 2", [[(1, 3, 6, 4)], [(2, 3, 4, 10)]]),
    (
        lambda: nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d((2, 3)), nn.Flatten(), nn.Linear(12, 2)),
        [(1, 3, 8, 8)],
        "any batch size, any height and width",
        [[(1, 3, 9, 5)], [(3, 3, 4, 30)]],
    ),
]


@pytest.mark.parametrize(("make", "example", "sizes", "others"), SIZES)
def test_sizes_that_a_network_takes(
    make: Callable[[], nn.Module], example: list[tuple[int, ...]], sizes: str, others: list[list[tuple[int, ...]]]
) -> None:
    network = make().eval()
    inputs = [torch.zeros(shape) for shape in example]
    made = program.export(network, inputs)
    assert made.sizes == sizes
    assert made.outputs == []
    assert program.check(network, made, inputs) < 1e-6
    for shapes in others:
        x = [torch.rand(shape) for shape in shapes]
        torch.testing.assert_close(made.exported.module()(*x), network(*x))


def test_whole_numbers_have_a_batch_too() -> None:
    network = Conditioned().eval()
    made = program.export(network, (torch.zeros(1, 3, 8, 8), torch.ones(1, 2, dtype=torch.long)))
    assert made.sizes == "any batch size, any height and width"
    x, steps = torch.rand(2, 3, 5, 6), torch.tensor([[1, 2], [0, 3]])
    torch.testing.assert_close(made.exported.module()(x, steps), network(x, steps))


def test_fewer_sizes_are_tried_where_a_program_is_not_accepted() -> None:
    seen = []

    def accept(made: program.Program) -> None:
        seen.append(made.sizes)
        if made.multiple is not None:
            raise ExportError("sides must be those of the example")

    assert (
        program.export(Parity(), EXAMPLE, accept).sizes == "any batch size, the height and width of the example alone"
    )
    assert len(seen) > 3

    def never(made: program.Program) -> None:
        seen.append(made.sizes)
        raise ExportError(f"no {made.sizes}")

    seen.clear()
    with pytest.raises(ExportError, match="no batches of 1, the height and width of the example alone"):
        program.export(Parity(), EXAMPLE, never)
    assert len(seen) == 2, "what is impossible with the sizes of the example is not tried with others"


def test_what_differs_is_refused() -> None:
    network = Sharpen().eval()
    made = program.export(copy.deepcopy(network), EXAMPLE)
    with torch.no_grad():
        network.conv.weight += 1e-3
    with pytest.raises(ExportError, match=r"outputs differ from the network's by 0\.\d+, more than 1e-05"):
        program.check(network, made, EXAMPLE)


class Second(nn.Module):
    """Two outputs, of which one may be anything."""

    def __init__(self, first: float, second: float) -> None:
        super().__init__()
        self.values = (first, second)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x + self.values[0], x + self.values[1]


@pytest.mark.parametrize(("lost", "place"), [(torch.nan, 0), (torch.inf, 1)])
def test_no_output_that_is_not_finite_passes(lost: float, place: int, tmp_path: Path) -> None:
    values = [0.0, 0.0]
    values[place] = lost
    network = Second(*values).eval()
    with pytest.raises(ExportError, match="outputs differ from the network's by nan"):
        program.check(network, program.export(network, EXAMPLE), EXAMPLE)
    assert math.isnan(greatest_difference(network(*EXAMPLE), network(*EXAMPLE)))
    for format, suffix in SUFFIXES.items():
        path = tmp_path / f"network{suffix}"
        with pytest.raises(
            DivergedError, match=f"network{suffix} was not written: the network's output must be finite"
        ):
            export(network, Genotype(space="none", choices={}), EXAMPLE, path, format)
    assert list(tmp_path.iterdir()) == []


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


@pytest.mark.parametrize("multiple", [1, 4])
def test_the_largest_probe_is_at_least_twice_the_example(multiple: int) -> None:
    """A level of one pixel, of a pyramid of small pictures, is a constant of the trace."""
    made = program.export(nn.Conv2d(3, 1, 1), (torch.zeros(1, 3, 20, 24),))._replace(multiple=multiple)
    shapes = [inputs[0].shape for inputs in program.probes(made, (torch.zeros(1, 3, 20, 24),))]
    assert shapes[0] == (1, 3, 20, 24)
    assert all(after >= 2 * before for before, after in zip((20, 24), shapes[-1][2:], strict=True))
    assert not any(side % multiple for side in shapes[-1][2:])
