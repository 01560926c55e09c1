"""Memory layouts of images and of their gradients, and what torch does wrongly in one of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import jvp, vmap
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import toy
from nas.genotype.file import Genotype
from nas.kernels.memory_format import by_hand, channels_last, conv2d, given_back, laid_out, pointwise_dilation
from nas.run.folder import Run
from nas.run.retraining import evaluate, load_network, previews, retrain
from nas.space.cell import Cell
from nas.space.chooser import Chooser
from nas.space.definition import SearchSpace, search_space
from nas.supernet import Supernet
from search_spaces.darts import darts_space
from tmics_space.blocks import conv

FORWARD_MODE = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own


def lies_last(x: Tensor) -> bool:
    """Whether the channels of an image lie last, that of one of which only some pixels were taken too."""
    return x.dim() == 4 and x.stride(1) == 1 and x.shape[1] > 1 and x.shape[2:].numel() > 1


def test_images_and_their_gradients_lie_channels_last() -> None:
    x = torch.randn(2, 3, 4, 5, requires_grad=True)
    (gradient,) = torch.autograd.grad(laid_out(x).mean((2, 3)).sum(), x)
    assert torch.allclose(gradient, torch.full_like(x, 1 / 20))
    assert lies_last(gradient)
    assert lies_last(laid_out(x))
    assert torch.equal(laid_out(x), x)


def test_other_tensors_stay() -> None:
    x = torch.randn(2, 3)
    assert laid_out(x) is x
    x = torch.randn(2, 3, 4, 5, device="meta")
    assert laid_out(x) is x


def test_one_image_gets_the_stride_that_torch_expects() -> None:
    x = laid_out(torch.randn(1, 3, 4, 5)).view(1, 3, 4, 5)
    assert x.stride(0) == 3
    assert laid_out(x).stride(0) == 60


class Pair(NamedTuple):
    first: Tensor
    second: Any


def test_what_is_given_back_lies_as_torch_has_it() -> None:
    x = laid_out(torch.randn(2, 3, 4, 5)).requires_grad_()
    number = torch.ones(2)
    found = given_back({"a": Pair(x, [x, number]), "b": (x, None)})
    assert type(found["a"]) is Pair
    tensors = [found["a"].first, found["a"].second[0], found["b"][0]]
    assert all(torch.equal(tensor, x) and tensor.is_contiguous() for tensor in tensors)
    assert found["a"].second[1] is number
    (gradient,) = torch.autograd.grad(tensors[0].mean((2, 3)).sum(), x)
    assert lies_last(gradient)


@FORWARD_MODE
@pytest.mark.parametrize("function", [laid_out, lambda x: given_back(laid_out(x))], ids=["laid out", "given back"])
def test_derivatives(function: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(1, 2, 2, 3, dtype=torch.double, requires_grad=True)
    assert gradcheck(function, (x,), check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(lambda x: function(x) ** 3, (x,), check_fwd_over_rev=True)


SETTINGS = [
    {"stride": 2},
    {"stride": (1, 2)},
    {"stride": (3, 2), "padding": (1, 0)},
    {"stride": 2, "padding": 1, "groups": 2},
    {"stride": 2, "padding": "valid", "dilation": 2},
    {"stride": [2]},
]


@FORWARD_MODE
@pytest.mark.parametrize("shape", [(2, 4, 7, 6), (4, 5, 5)], ids=["batch", "one image"])
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_a_strided_pointwise_convolution_takes_the_pixels_first(
    setting: dict[str, Any], shape: tuple[int, ...]
) -> None:
    weight = torch.randn(6, 4 // setting.get("groups", 1), 1, 1, dtype=torch.double, requires_grad=True)
    leaves = (torch.randn(shape, dtype=torch.double, requires_grad=True), weight, torch.randn(6, dtype=torch.double))
    with Watch() as watch:
        found = [f(*leaves, **setting) for f in (F.conv2d, conv2d)]
        with channels_last():
            found.append(F.conv2d(*leaves, **setting))
            found.append(F.conv2d(input=leaves[0], weight=weight, bias=leaves[2], **setting))
    assert watch.strided == 1
    assert all((one - found[0]).abs().max() < 1e-14 for one in found)
    assert gradcheck(lambda x, w: conv2d(x, w, **setting), leaves[:2], check_forward_ad=True)
    assert gradgradcheck(lambda x, w: conv2d(x, w, **setting), leaves[:2])


@pytest.mark.parametrize(
    ("batch", "channels", "groups", "threads", "dtype", "last", "dilation"),
    [
        (8, 64, 4, 1, torch.float32, True, 2),
        (8, 64, 1, 1, torch.float32, True, 2),
        (8, 16, 1, 1, torch.float32, True, 1),
        (16, 64, 4, 1, torch.float32, True, 1),
        (8, 64, 4, 2, torch.float32, True, 1),
        (8, 64, 4, 1, torch.float64, True, 1),
        (8, 64, 4, 1, torch.float32, False, 1),
    ],
)
def test_pointwise_convolutions_avoid_the_slow_path_of_torch(
    monkeypatch: pytest.MonkeyPatch,
    batch: int,
    channels: int,
    groups: int,
    threads: int,
    dtype: torch.dtype,
    last: bool,
    dilation: int,
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    x = torch.randn(batch, channels, 8, 8, dtype=dtype)
    x = laid_out(x) if last else x
    assert pointwise_dilation(x, groups) == dilation
    weight = torch.randn(channels, channels // groups, 1, 1, dtype=dtype)
    expected = F.conv2d(x.double(), weight.double(), groups=groups)
    dilated = F.conv2d(x.double(), weight.double(), dilation=2, groups=groups)
    torch.testing.assert_close(dilated, expected, rtol=0, atol=1e-12)
    with Watch() as watch:
        found = conv2d(x, weight, groups=groups)
    assert watch.dilations == {(dilation, dilation)}
    assert (found - expected).abs().max() < (1e-12 if dtype is torch.float64 else 1e-4)


def test_spaces_share_the_pointwise_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planned cell of one space and a block of another, at one thread."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    x = torch.randn(4, 64, 8, 8)
    supernet = Supernet(darts_space, channels=4, cells=3, nodes=2)
    with Watch() as watch:
        supernet(torch.randn(4, 3, 16, 16))
        assert (2, 2) in watch.dilations
        watch.dilations.clear()
        with channels_last():
            conv(64, 64, 1)(laid_out(x))
    assert watch.dilations == {(2, 2)}


def test_convolutions_of_a_context_compute_channels_last() -> None:
    x, weight = torch.randn(2, 3, 8, 8), torch.randn(4, 3, 3, 3)
    with channels_last():
        assert lies_last(F.conv2d(x, weight))
        assert lies_last(nn.Conv2d(3, 4, 3)(x))
        with by_hand():
            assert F.conv2d(x, weight).is_contiguous()
        assert lies_last(F.conv2d(x, weight))
        assert F.conv2d(x[:, :2], weight[:, :2]).is_contiguous(), "of few channels"
        assert F.conv2d(x, weight[:, :, :1, :1]).is_contiguous(), "of a pixel at a time"
        assert F.conv2d(x, weight[:3, :1], groups=3).is_contiguous(), "of a channel at a time"
    assert F.conv2d(x, weight).is_contiguous()
    with channels_last(nn.Conv2d(3, 4, 1, device="meta")):
        assert F.conv2d(x, weight).is_contiguous()


def test_the_context_of_another_stays() -> None:
    class Other(TorchFunctionMode):
        seen = 0

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.seen += 1
            return func(*args, **(kwargs or {}))

    x = torch.ones(2)
    with channels_last(), Other() as other, by_hand():
        x + 1
    assert other.seen == 1


@pytest.mark.parametrize("make", [nn.InstanceNorm2d, nn.BatchNorm2d])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("last", [False, True])
def test_norms_of_one_image(make: Callable[..., nn.Module], batch: int, last: bool) -> None:
    """Torch's gradients of an instance norm are wrong for one image and a gradient that lies channels last."""
    x = torch.randn(batch, 8, 6, 5, dtype=torch.double, requires_grad=True)
    gradient = torch.randn(batch, 8, 6, 5, dtype=torch.double)
    norm = make(8, affine=True).double()
    leaves = [x, *norm.parameters()]
    expected = torch.autograd.grad(norm(x), leaves, gradient)
    with channels_last():
        output = norm(laid_out(x) if last else x)
        for form in (laid_out(gradient), laid_out(gradient).view(gradient.shape), gradient):
            found = torch.autograd.grad(output, leaves, form, retain_graph=True)
            assert all((a - b).abs().max() < 1e-12 for a, b in zip(found, expected, strict=True))


@FORWARD_MODE
def test_transforms() -> None:
    x, weight = torch.randn(3, 2, 4, 8, 8, dtype=torch.double), torch.randn(4, 4, 1, 1, dtype=torch.double)

    def f(x: Tensor) -> Tensor:
        with channels_last():
            return F.instance_norm(F.conv2d(x, weight, stride=2))

    expected = torch.stack([F.instance_norm(F.conv2d(each, weight, stride=2)) for each in x])
    assert (vmap(f)(x) - expected).abs().max() < 1e-12
    step = 1e-6
    along = torch.randn_like(x[0])
    central = (f(x[0] + step * along) - f(x[0] - step * along)) / (2 * step)
    assert (jvp(f, (x[0],), (along,))[1] - central).abs().max() < 1e-7
    with forward_ad.dual_level():
        assert (forward_ad.unpack_dual(f(forward_ad.make_dual(x[0], along))).tangent - central).abs().max() < 1e-7


class Watch(TorchDispatchMode):
    """Counts convolutions and their gradients: all, those of an operand channels last, and strided ones of 1x1."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.dilations: set[tuple[int, ...]] = set()
        """Of 1x1 kernels."""

    @property
    def strided(self) -> int:
        return self.calls["strided"]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in (torch.ops.aten.convolution, torch.ops.aten.convolution_backward):
            backward = func.overloadpacket is torch.ops.aten.convolution_backward
            tensors, settings = (args[:3], args[4:]) if backward else (args[:2], args[3:])
            stride, weight, transposed = settings[0], tensors[-1], settings[3]
            self.calls["all"] += 1
            self.calls["channels last"] += any(map(lies_last, tensors))
            if not transposed and set(weight.shape[2:]) == {1}:
                self.calls["strided"] += set(stride) != {1}
                self.dilations.add(tuple(settings[2]))
        return func(*args, **(kwargs or {}))


class Direct(nn.Module):
    """A layer of one's own that calls torch's function."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.conv2d(x, self.weight, None, 2).tanh()


@torch.library.custom_op("layout_test::down", mutates_args=())
def down(x: Tensor, weight: Tensor) -> Tensor:
    """A strided convolution that no function mode sees into."""
    return torch.conv2d(x, weight, None, 2)


@torch.library.custom_op("layout_test::fill", mutates_args=("x",))
def fill(x: Tensor) -> None:
    x.fill_(1)


STRIDED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "convolution": lambda x, w: torch.convolution(x, w, None, [2, 2], [0, 0], [1, 1], False, [0, 0], 1),
    "oneDNN": lambda x, w: torch.mkldnn_convolution(x, w, None, [0, 0], [2, 2], [1, 1], 1),
    "operator": lambda x, w: torch.ops.aten.conv2d(x, w, None, [2, 2]),
    "overload": lambda x, w: torch.ops.aten.conv2d.default(x, w, stride=[2, 2]),
    "custom": down,
}


@pytest.mark.parametrize("function", STRIDED.values(), ids=STRIDED)
def test_other_convolutions_meet_images_as_torch_has_them(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    x, weight = laid_out(torch.randn(2, 4, 6, 6)), torch.randn(3, 4, 1, 1)
    met = []

    class Meet(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if any(each is weight for each in args):
                met.append(lies_last(args[0]))
            return func(*args, **(kwargs or {}))

    with channels_last(), Meet():
        found = function(x, weight)
    assert met == [False]
    assert (found - torch.conv2d(x.contiguous().double(), weight.double(), None, 2)).abs().max() < 1e-5


def test_operators_write_into_what_they_are_given() -> None:
    x = laid_out(torch.zeros(2, 4, 6, 6))
    with channels_last():
        torch.ops.aten.add_.Tensor(x, 1)
        assert x.eq(1).all()
        fill(x.zero_())
    assert x.eq(1).all()


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_networks_with_parts_in_torchscript_lie_as_torch_has_them() -> None:
    """Their convolutions cannot be replaced."""

    def space(choose: Chooser) -> nn.Module:
        down = {"script": lambda: torch.jit.script(nn.Conv2d(4, 4, 1, stride=2)), "pool": lambda: nn.AvgPool2d(2)}
        cell = Cell(choose, "cell", down, nodes=1, inputs=1)
        return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), cell, torch.jit.script(nn.Conv2d(4, 4, 1, stride=2)))

    supernet, plain = (Supernet(SearchSpace("scripted", space), evaluation=e) for e in ("planned", "plain"))
    plain.load_state_dict(supernet.state_dict())
    x = torch.randn(2, 3, 8, 8)
    with Watch() as watch:
        supernet(x).sum().backward()
    assert watch.strided > 0
    assert watch.calls["channels last"] == 0
    assert torch.equal(supernet(x), plain(x))


class Mixed(nn.Module):
    """A stem, a strided decision outside of cells, a cell with strided candidates, and one more layer behind it."""

    def __init__(self, choose: Chooser) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        strided: dict[str, Callable[[], nn.Module]] = {
            "conv": lambda: nn.Conv2d(4, 4, 1, stride=2),
            "direct": lambda: Direct(4, 4),
            "behind": lambda: nn.Sequential(
                nn.Conv2d(4, 4, 1, (1, 2), groups=2), nn.Dropout(0.0), nn.AvgPool2d((2, 1))
            ),
        }
        self.first = choose("first", strided)
        self.cell = Cell(
            choose, "cell", lambda source, node: strided if source == 0 else {"skip": nn.Identity}, inputs=1
        )
        self.last = nn.Conv2d(16, 2, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.cell(self.first(self.stem(x))))
        return found


mixed = SearchSpace("mixed", lambda choose: Mixed(choose))


@pytest.mark.parametrize("memory", ["keep", "checkpoint"])
@pytest.mark.parametrize("relaxation", ["softmax", "gumbel"])
@pytest.mark.parametrize("space", [mixed, darts_space], ids=["own", "darts"])
def test_supernets(space: SearchSpace, relaxation: str, memory: Any) -> None:
    options = {"channels": 4, "cells": 3, "nodes": 2} if space is darts_space else {}
    supernet = Supernet(space, relaxation=relaxation, memory=memory, **options)
    x = torch.randn(2, 3, 16, 16, requires_grad=True)
    with Watch() as watch:
        output = supernet(x)
        assert output.is_contiguous()
        assert watch.calls["channels last"] > 0.6 * watch.calls["all"]
        gradients = torch.autograd.grad(
            output.square().sum(), [x, *supernet.parameters()], create_graph=True, allow_unused=True
        )
        total = torch.stack([g.square().sum() for g in gradients if g is not None]).sum()
        total.backward()
    assert watch.strided == 0
    assert all(parameter.is_contiguous() for parameter in supernet.parameters())


def test_parts_of_a_supernet_called_by_themselves_lie_as_torch_has_it() -> None:
    supernet = Supernet(mixed)
    with Watch() as watch:
        output = supernet.network(torch.randn(2, 3, 16, 16))
        output.square().sum().backward()
    assert output.is_contiguous()
    assert watch.calls["channels last"] == 0 < watch.strided


def test_on_other_devices_the_layout_is_that_of_torch() -> None:
    supernet = Supernet(mixed).to("meta")
    with Watch() as watch:
        assert supernet(torch.zeros(1, 3, 16, 16, device="meta")).device.type == "meta"
    assert watch.calls["channels last"] == 0
    assert watch.strided > 0


def test_derived_networks_lie_as_torch_has_them() -> None:
    supernet = Supernet(darts_space, channels=4, cells=3, nodes=2)
    network = supernet.derived(supernet.derive())
    assert all(parameter.is_contiguous() for parameter in network.parameters())
    with Watch() as watch:
        network(torch.randn(2, 3, 16, 16)).sum().backward()
    assert watch.strided > 0
    assert watch.calls["channels last"] == 0


@search_space("strided")
def strided(choose: Chooser, /) -> nn.Module:
    """The toy network with strided 1x1 convolutions, of a module and by a function."""
    down: dict[str, Callable[[], nn.Module]] = {"conv": lambda: nn.Sequential(nn.Conv2d(4, 4, 1, 2), nn.Upsample(5))}
    direct: dict[str, Callable[[], nn.Module]] = {"direct": lambda: nn.Sequential(Direct(4, 4), nn.Upsample(5))}
    return toy.Toy(4, choose("first", down), choose("second", direct))


def test_retraining_evaluation_and_prediction(tmp_path: Path) -> None:
    stages = ("retrain.stages.backbone.steps=2", "retrain.stages.averaging.steps=2", "retrain.epochs=1")
    config = msgspec.structs.replace(toy.config(*stages), space="strided", options={})
    genotype = Genotype(space="strided", choices={"first": "conv", "second": "direct"})
    with Watch() as watch, Run.create(tmp_path / "run", config.dump(), 0) as run:
        network = retrain(config, genotype, run)
        evaluate(network, config.build_task())
        previews(network, config.build_task())
    assert watch.strided == 0
    assert watch.calls["channels last"] > 0
    for each in (network, load_network(tmp_path / "run")):
        assert all(parameter.is_contiguous() for parameter in each.parameters())


HEAP = """
import torch
from torch import nn
from nas import SearchSpace, Supernet

def own(choose):
    strided = {"a": lambda: nn.Conv2d(8, 16, 1, stride=2), "b": lambda: nn.Conv2d(8, 16, 3, 2, 1)}
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), choose("down", strided))

for supernet in (Supernet("darts", channels=4, cells=3, nodes=2), Supernet(SearchSpace("own", own))):
    for _ in range(4):
        supernet(torch.randn(2, 3, 64, 64)).sum().backward()
"""


def test_the_heap_stays_whole() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_CHECK_": "3", "MALLOC_PERTURB_": "165"}
    subprocess.run([sys.executable, "-c", HEAP], env=environment, check=True, timeout=200)


@pytest.mark.parametrize("most", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_random_shapes(most: int, tmp_path: Path) -> None:
    """The first of the program that tries many."""
    tool = Path(__file__).parents[2] / "tools" / "fuzz_layouts.py"
    log = tmp_path / "log"
    command = [sys.executable, tool, "--seed", "7", "--log", log]
    for count in (2, most):  # the second resumes
        done = subprocess.run(
            [*command, "--count", str(count)], capture_output=True, text=True, check=False, timeout=250
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(log.read_text().splitlines()) == count
    cases = list(map(json.loads, log.read_text().splitlines()))
    assert [case["number"] for case in cases] == list(range(most))
    assert "conv2d 1x1" in done.stdout
