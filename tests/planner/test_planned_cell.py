"""The planned evaluation equals the plain one: random cells, candidates, states and modes, to 1e-12 in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from nas.derive.random import choose_randomly
from nas.genotype.file import Genotype
from nas.kernels.evaluation import discarding
from nas.multilevel.level import Level
from nas.multilevel.multilevel import Multilevel
from nas.planner.planned_cell import PlannedCell
from nas.space.cell import Cell
from nas.space.chooser import Chooser
from nas.space.definition import SearchSpace
from nas.space.mixed import MixedOperation
from nas.space.primitives import DARTS, NAS_BENCH_201, Parallel, conv_bn_relu
from nas.supernet import Supernet

C = 4
Make = Callable[..., nn.Module]


class Unknown(nn.Module):
    """A module that the planner does not know."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(C, 1, 1))
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x[:, :, :: self.stride, :: self.stride].tanh()


class Reshaped(nn.Module):
    """Views of an image, the last of the shape of the first, before a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(C)

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(2)
        normalized: Tensor = self.norm(pixels.view(x.shape) if pixels.stride(1) > 1 else pixels.reshape(x.shape))
        return normalized.reshape(len(x), C, -1).reshape(x.shape)


class Cube(nn.Module):
    channelwise = True

    def forward(self, x: Tensor) -> Tensor:
        return x**3


def own(channels: int, *, stride: int, affine: bool) -> nn.Module:
    """Only `nn.Sequential` and known layers, biases and groups among them."""
    grouped = nn.Conv2d(channels, channels, 3, stride, 1, groups=2)
    return nn.Sequential(nn.Tanh(), grouped, Cube(), nn.Conv2d(channels, channels, 1), nn.Sigmoid())


def norm_first(channels: int, *, stride: int, affine: bool) -> nn.Module:
    """A norm that is shared in training mode, before what is not."""
    first = nn.BatchNorm2d(channels, affine=False, momentum=0.3)
    return nn.Sequential(
        first, nn.AvgPool2d(stride, ceil_mode=True), nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels)
    )


def branches(channels: int, *, stride: int, affine: bool) -> nn.Module:
    convolution = nn.Conv2d(channels, channels - 1, 1, stride, bias=False)
    pool = nn.Sequential(nn.AvgPool2d(stride, ceil_mode=True), nn.Conv2d(channels, 1, 1))
    inner = Parallel([nn.Sequential(nn.ReLU(), nn.Conv2d(channels, channels, 1)), nn.Tanh()])
    return nn.Sequential(Parallel([convolution, pool]), inner, nn.Conv2d(2 * channels, channels, 1))


def unstrided(make: Callable[[int], nn.Module], channels: int, *, stride: int, affine: bool) -> nn.Module:
    return nn.Sequential(nn.AvgPool2d(stride, ceil_mode=True), make(channels))


CANDIDATES: dict[str, Make] = {
    **DARTS,
    **NAS_BENCH_201,
    "second_skip": DARTS["skip_connect"],
    "second_conv": DARTS["sep_conv_3x3"],
    "conv_bn_relu": conv_bn_relu,
    "own": own,
    "norm_first": norm_first,
    "branches": branches,
    "unknown": lambda channels, *, stride, affine: Unknown(stride),
    "untracked": partial(unstrided, lambda c: nn.BatchNorm2d(c, track_running_stats=False)),
    "frozen": partial(unstrided, lambda c: nn.BatchNorm2d(c, affine=False, momentum=0.0)),
    "instance_norm": partial(unstrided, lambda c: nn.InstanceNorm2d(c, affine=True)),
    "reshaped": partial(
        unstrided, lambda c: nn.Sequential(nn.Conv2d(c, c, 1), nn.BatchNorm2d(c), Reshaped(), nn.Tanh())
    ),
    "dropout_free": partial(unstrided, lambda c: nn.Dropout(0.0)),
}


def build(choose: Chooser, *, names: tuple[str, ...], nodes: int, affine: bool, stride: int, output: str) -> nn.Module:
    """Two cells of one label on two images each, the second on smaller ones."""

    def candidates(source: int, node: int) -> dict[str, Any]:
        some = names[(source + node) % 2 :] if len(names) > 2 else names  # edges differ
        bound = {"stride": stride if source < 2 else 1, "affine": affine}
        return {name: partial(CANDIDATES[name], C, **bound) for name in some}

    cells = [Cell(choose, "c", candidates, nodes=nodes, output=output) for _ in range(2)]  # type: ignore[arg-type]
    return Network(cells, nodes * C if output == "concat" else C)


class Network(nn.Module):
    def __init__(self, cells: list[Cell], width: int) -> None:
        super().__init__()
        self.cells = nn.ModuleList(cells)
        self.join = nn.Conv2d(width, C, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        first, second = self.cells
        z = self.join(first(x, y))
        return second(z, z.tanh()).mean((2, 3)).tanh()


SETTINGS = st.fixed_dictionaries(
    {
        "names": st.lists(st.sampled_from(sorted(CANDIDATES)), min_size=1, max_size=5, unique=True).map(tuple),
        "nodes": st.integers(1, 3),
        "affine": st.booleans(),
        "stride": st.integers(1, 2),
        "output": st.sampled_from(["concat", "last"]),
    }
)
SEEDS = st.integers(0, 1000)


def supernets(setting: dict[str, Any], seed: int = 0, **arguments: Any) -> tuple[Supernet, Supernet]:
    """The same supernet, evaluated plainly and by plan, away from its initial state."""
    space = SearchSpace("random", lambda choose: build(choose, **setting))
    generator = torch.Generator().manual_seed(seed)
    plain = Supernet(space, seed=seed, evaluation="plain", **arguments).double()
    state = plain.state_dict()
    for value in state.values():
        if value.is_floating_point():
            value.add_(torch.rand(value.shape, generator=generator, dtype=torch.double) / 2)
    planned = Supernet(space, seed=seed, **arguments).double()
    planned.load_state_dict(state)
    return plain, planned


def images(seed: int = 0, size: int = 6) -> tuple[Tensor, Tensor]:
    """Two batches, of one image each for every third seed."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 1 if seed % 3 == 2 else 2, C, size, size, dtype=torch.double, generator=generator)
    return x[0], x[1]


def assert_close(a: list[Tensor], b: list[Tensor], tolerance: float = 1e-12) -> None:
    for x, y in zip(a, b, strict=True):
        scale = max(1.0, x.abs().max().item())
        assert (x - y).abs().max() <= tolerance * scale, f"{(x - y).abs().max():.3g} of {scale:.3g}"


def results(supernet: Supernet, inputs: tuple[Tensor, ...], *, order: int = 1) -> list[Tensor]:
    """Output, gradients of everything, and those of their squares where `order` is 2; then the buffers."""
    inputs = tuple(x.clone().requires_grad_() for x in inputs)
    leaves = [*supernet.parameters(), *inputs]
    output = supernet(*inputs)
    weights = torch.linspace(-1, 1, output.numel(), dtype=torch.double).view_as(output)
    found = [output]
    total = (weights * output).sum()
    for _ in range(order):
        found += torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True, create_graph=order > 1)
        total = torch.stack([g.square().sum() for g in found[1:]]).sum()
    return [*found, *supernet.buffers()]


@given(SETTINGS, SEEDS)
@settings(max_examples=25)
def test_outputs_gradients_and_buffers(setting: dict[str, Any], seed: int) -> None:
    check_outputs_gradients_and_buffers(setting, seed)


@pytest.mark.slow
@given(SETTINGS, SEEDS)
@settings(max_examples=100)
def test_outputs_gradients_and_buffers_at_length(setting: dict[str, Any], seed: int) -> None:
    check_outputs_gradients_and_buffers(setting, seed)


def check_outputs_gradients_and_buffers(setting: dict[str, Any], seed: int) -> None:
    plain, planned = supernets(setting, seed)
    assert list(plain.state_dict()) == list(planned.state_dict())
    for step, training in enumerate((True, True, False, True)):
        found = [results(supernet.train(training), images(seed + step)) for supernet in (plain, planned)]
        assert_close(*found)


@given(SETTINGS, SEEDS)
@settings(max_examples=6)
def test_second_order_gradients(setting: dict[str, Any], seed: int) -> None:
    for training in (True, False):
        found = (results(s.train(training), images(seed), order=2) for s in supernets(setting, seed))
        assert_close(*found, tolerance=1e-10)  # the gradient of a squared gradient is rounded twice


@given(SETTINGS, SEEDS)
@settings(max_examples=10)
def test_fixed_supernets_and_derived_networks(setting: dict[str, Any], seed: int) -> None:
    plain, planned = supernets(setting, seed)
    choices = choose_randomly(plain.decisions, torch.Generator().manual_seed(seed))
    genotype = Genotype(space="random", choices=choices)
    derived = planned.eval().derived(genotype)
    found = []
    for supernet in (plain.eval(), planned):
        with supernet.fixed(genotype), torch.no_grad():
            found.append([supernet(*images(seed))])
    assert_close(*found)
    with torch.no_grad():
        assert_close(found[1], [derived(*images(seed))])
        assert_close([plain(*images(seed))], [planned(*images(seed))])


@given(SETTINGS, SEEDS)
@settings(max_examples=15)
def test_sampled_candidates(setting: dict[str, Any], seed: int) -> None:
    found = []
    for supernet in supernets(setting, seed, relaxation="gumbel"):
        supernet.on_progress(seed, 2000)
        found.append(results(supernet, images(seed)))
    assert_close(*found)


def test_the_same_parameters_are_used() -> None:
    """By sampled candidates, those that are no connection included: a search asks which decisions a loss depends on."""
    unused = []
    for supernet in supernets(DARTS_LIKE, relaxation="gumbel"):
        found = []
        for step in range(5):
            supernet.on_progress(step, 5)
            total = supernet(*images()).sum()
            gradients = torch.autograd.grad(total, list(supernet.parameters()), allow_unused=True)
            found.append(
                [name for (name, _), g in zip(supernet.named_parameters(), gradients, strict=True) if g is None]
            )
        unused.append(found)
    assert unused[0] == unused[1]


DARTS_LIKE = {"names": tuple(DARTS), "nodes": 2, "affine": True, "stride": 1, "output": "concat"}


def test_a_functional_call_uses_the_parameters_and_buffers_it_is_given() -> None:
    plain, planned = supernets(DARTS_LIKE)
    found = []
    for supernet in (plain, planned):
        before = {name: value.clone() for name, value in supernet.state_dict().items()}
        supernet(*images())  # so that a plan exists
        supernet.load_state_dict(before)
        state = {name: value.detach() + 0.1 for name, value in supernet.named_parameters()}
        buffers = {name: buffer.clone() for name, buffer in supernet.named_buffers()}
        found.append([functional_call(supernet, {**state, **buffers}, images()), *buffers.values()])
        for name, value in supernet.state_dict().items():
            assert torch.equal(value, before[name])
        found[-1] += torch.autograd.grad(
            functional_call(supernet, {n: v.requires_grad_() for n, v in state.items()}, images()).square().sum(),
            list(state.values()),
            allow_unused=True,
            materialize_grads=True,
        )
    assert_close(*found)


@pytest.mark.parametrize("affine", [False, True])
def test_buffers_that_are_thrown_away_do_not_move(affine: bool) -> None:
    found = []
    for supernet in supernets({**DARTS_LIKE, "affine": affine}):
        cells = supernet.network.cells
        before = {name: buffer.clone() for name, buffer in cells.named_buffers()}
        with discarding():
            found.append([supernet(*images())])
        still = [torch.equal(buffer, before[name]) for name, buffer in cells.named_buffers()]
        assert all(still) == (supernet.evaluation == "planned")
    assert_close(*found)


def test_a_copy_is_independent() -> None:
    _, planned = supernets(DARTS_LIKE)
    expected = planned(*images())
    other = copy.deepcopy(planned)
    for parameter in other.parameters():
        parameter.data.zero_()
    other(*images())
    cell = other.network.cells[0]
    assert cell.evaluation.cell is cell
    planned.eval()
    assert torch.allclose(planned.train()(*images()), expected)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own, for `jvp`
def test_forward_mode_derivatives() -> None:
    found = []
    for supernet in supernets(DARTS_LIKE):
        with forward_ad.dual_level():
            state = {
                name: forward_ad.make_dual(value.detach(), torch.ones_like(value))
                for name, value in supernet.named_parameters()
            }
            found.append(list(forward_ad.unpack_dual(functional_call(supernet, state, images()))))
    assert_close(*found)


@pytest.mark.parametrize("method", ["first_order", "unrolled"])
def test_levels_move_alike(method: str) -> None:
    moved = []
    for supernet in supernets({**DARTS_LIKE, "affine": False}):
        levels = {
            "lower": Level(
                parameters=("network.*",),
                loss="loss",
                split="train",
                optimizer={"name": "sgd", "lr": 0.05, "momentum": 0.9},
            ),
            "upper": Level(
                parameters=("arch.*",),
                loss="loss",
                split="val",
                optimizer={"name": "sgd", "lr": 0.1},
                hypergradient={"lower": {"name": method}},
            ),
        }
        step = Multilevel(
            supernet,
            levels,
            {"loss": lambda model, batch: model(*batch).square().sum()},
            lambda split, index: images(2 * index + (split == "val")),
            3,
        )
        for k in range(3):
            step.step(k)
        moved.append(list(supernet.state_dict().values()))
    assert_close(*([value.double() for value in values] for values in moved))


def test_modes_of_single_norms_count() -> None:
    plain, planned = supernets(DARTS_LIKE)
    for supernet in (plain, planned):
        supernet(*images())
        for i, module in enumerate(supernet.modules()):
            if isinstance(module, nn.BatchNorm2d) and i % 3 == 0:
                module.eval()
    assert_close(results(plain, images()), results(planned, images()))


def test_buffers_that_differ_are_not_shared() -> None:
    plain, planned = supernets({**DARTS_LIKE, "affine": False})
    means = [m.running_mean for m in planned.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not all(torch.equal(means[0], mean) for mean in means)
    assert_close(results(plain.eval(), images()), results(planned.eval(), images()))


def calls(supernet: Supernet, name: str) -> int:
    """How often torch computes what has this name, in a forward pass."""

    class Count(TorchDispatchMode):
        counted = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.counted += func.overloadpacket.__name__ == name
            return func(*args, **(kwargs or {}))

    with Count() as count:
        supernet(*images())
    return count.counted


def test_candidates_without_parameters_are_computed_once_a_node() -> None:
    plain, planned = supernets(DARTS_LIKE)
    name = "max_pool2d_with_indices"
    assert calls(plain, name) == 2 * (2 + 3)  # cells, edges
    assert calls(planned, name) == 2 * 3  # cells, nodes with out-edges


def test_changed_modules_are_planned_anew() -> None:
    plain, planned = supernets(DARTS_LIKE)
    for supernet in (plain, planned):
        supernet(*images())
    heard = []
    for supernet in (plain, planned):
        edge = next(m for m in supernet.modules() if isinstance(m, MixedOperation))
        edge.sep_conv_3x3[0] = nn.Tanh()
        edge.dil_conv_3x3.register_forward_hook(lambda *_, s=supernet: heard.append(s))
    assert_close(results(plain, images()), results(planned, images()))
    assert heard == [plain, planned]


def test_hooks_on_edges_and_nodes_are_called() -> None:
    for kind in (MixedOperation, "node"):
        _, planned = supernets(DARTS_LIKE)
        cell = planned.network.cells[0]
        part = next(iter(cell.nodes[1].children())) if kind is MixedOperation else cell.nodes[1]
        heard: list[Tensor] = []
        expected = planned(*images())
        handle = part.register_forward_hook(lambda _, __, output, heard=heard: heard.append(output))
        planned.eval().train()
        found = planned(*images())
        assert len(heard) == 1
        handle.remove()
        assert torch.allclose(found, expected, rtol=1e-12)


def test_plans_hold_no_tensors() -> None:
    _, planned = supernets(DARTS_LIKE)
    planned(*images())
    for module in planned.modules():
        if isinstance(module, Cell):
            assert isinstance(module.evaluation, PlannedCell)
            assert module.evaluation._plans
            for plan in module.evaluation._plans.values():
                assert not any(isinstance(value, Tensor) for source in plan.sources for value in vars(source).values())


def test_mixed_precision() -> None:
    found = []
    for supernet in supernets(DARTS_LIKE):
        inputs = tuple(x.float() for x in images())
        with torch.autocast("cpu", torch.bfloat16):
            output = supernet.float()(*inputs)
        gradients = torch.autograd.grad(output.float().square().sum(), list(supernet.network.join.parameters()))
        found.append([output.float(), *gradients, *(b.float() for b in supernet.buffers())])
    for a, b in zip(*found, strict=True):
        assert (a - b).abs().max() <= 0.05 * max(1.0, a.abs().max().item())  # bfloat16 has 8 bits


def test_other_shapes_than_images() -> None:
    def space(choose: Chooser, /) -> nn.Module:
        return Cell(choose, "c", {"a": lambda: nn.Linear(3, 3), "b": nn.Tanh, "c": nn.Identity}, inputs=1, nodes=2)

    x = torch.randn(2, 3, dtype=torch.double)
    plain, planned = (Supernet(SearchSpace("s", space), evaluation=e).double() for e in ("plain", "planned"))  # type: ignore[arg-type]
    assert_close([plain(x)], [planned(x)])
