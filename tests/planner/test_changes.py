"""What changes after a cell was planned: the planned evaluation still equals the plain one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest
import torch
from torch import Tensor, func, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.utils import parametrize, prune
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from nas.space.cell import Cell
from nas.space.chooser import Chooser
from nas.space.definition import SearchSpace
from nas.space.mixed import MixedOperation, Node
from nas.space.primitives import DARTS, FactorizedReduce
from nas.supernet import Supernet

C = 4


class Gate(nn.Module):
    """A layer without parameters that treats every channel by itself, and has a setting."""

    channelwise = True

    def __init__(self) -> None:
        super().__init__()
        self.gain = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * x.sigmoid()


class Twice(nn.Module):
    """A module that says what it consists of, by a setting."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = False
        self.layer = nn.Tanh()

    def structure(self) -> list[nn.Module]:
        return [self.layer] * (1 + self.twice)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.structure():
            x = layer(x)
        return x


def candidates(affine: bool, shared: nn.BatchNorm2d) -> dict[str, Callable[[], nn.Module]]:
    def own() -> nn.Module:
        return nn.Sequential(nn.Conv2d(C, C, 3, padding=1), nn.BatchNorm2d(C, affine=affine), nn.LeakyReLU(0.1))

    def reduce() -> nn.Module:
        return nn.Sequential(nn.UpsamplingNearest2d(scale_factor=2), FactorizedReduce(C, C))

    names = ("none", "max_pool_3x3", "avg_pool_3x3", "sep_conv_3x3", "dil_conv_3x3")
    return {
        **{name: partial(DARTS[name], C, affine=affine) for name in names},
        "own": own,
        "gate": lambda: nn.Sequential(Gate(), nn.Conv2d(C, C, 1)),
        "twice": lambda: nn.Sequential(Twice(), nn.Conv2d(C, C, 1)),
        "reduce": lambda: nn.Sequential(FactorizedReduce(C, C), nn.UpsamplingNearest2d(scale_factor=2)),
        "alike": lambda: nn.Sequential(nn.Conv2d(C, C, 3, padding=1), nn.BatchNorm2d(C, affine=affine)),
    }


def supernets(affine: bool, **arguments: Any) -> tuple[Supernet, Supernet]:
    """The same supernet, evaluated plainly and by plan; their plans are made."""

    def space(choose: Chooser, /) -> nn.Module:
        return Cell(choose, "c", candidates(affine, nn.BatchNorm2d(C)), inputs=1, nodes=2)

    pair = []
    for evaluation in ("plain", "planned"):
        supernet = Supernet(SearchSpace("s", space), evaluation=evaluation, **arguments).double()  # type: ignore[arg-type]
        generator = torch.Generator().manual_seed(0)
        for value in supernet.state_dict().values():
            if value.is_floating_point():
                value.add_(torch.rand(value.shape, generator=generator, dtype=torch.double) / 2)
        for step, training in enumerate((True, False, True)):
            supernet.on_progress(step, 3)
            supernet.train(training)(image())
        pair.append(supernet)
    return pair[0], pair[1]


def image() -> Tensor:
    return torch.randn(2, C, 6, 6, dtype=torch.double, generator=torch.Generator().manual_seed(1))


def results(supernet: Supernet) -> list[Tensor]:
    """Output, gradients and buffers, in training and in eval mode."""
    found = []
    for training in (True, False):
        x = image().requires_grad_()
        output = supernet.train(training)(x)
        leaves = [x, *(p for p in supernet.parameters() if p.requires_grad)]
        gradients = torch.autograd.grad((output**3).sum(), leaves, allow_unused=True, materialize_grads=True)
        found += [output, *gradients, *(b.clone() for b in supernet.buffers())]
    return found


def assert_equal(plain: list[Tensor], planned: list[Tensor]) -> None:
    scale = max(1.0, *(a.abs().max().item() for a in plain))  # a bias before a norm has a gradient of rounding alone
    for i, (a, b) in enumerate(zip(plain, planned, strict=True)):
        assert (a - b).abs().max() <= 1e-12 * scale, f"number {i}: {(a - b).abs().max():.3g} of {scale:.3g}"


def layers(supernet: nn.Module, kind: type[nn.Module]) -> list[Any]:
    return [module for module in supernet.modules() if type(module) is kind]


def each(kind: type[nn.Module], change: Callable[[Any], object], *, every: int = 2) -> Callable[[Supernet], None]:
    """A change of every so-manieth layer of a kind, so that layers that were alike no longer are."""

    def run(supernet: Supernet) -> None:
        for layer in layers(supernet, kind)[::every]:
            change(layer)

    return run


def setting(name: str, value: Any) -> Callable[[nn.Module], None]:
    return lambda module: setattr(module, name, value)


def dilated(convolution: nn.Conv2d) -> None:
    if convolution.kernel_size == (3, 3):
        convolution.dilation = tuple(2 * d for d in convolution.dilation)
        convolution.padding = tuple(2 * int(p) for p in convolution.padding)


def replaced_forward(module: nn.Module) -> None:
    forward = module.forward
    module.forward = lambda x: 2 * forward(x)  # type: ignore[method-assign]


def shared_norms(supernet: Supernet) -> None:
    """One norm for the candidates `own` of two edges."""
    edges = layers(supernet, MixedOperation)
    edges[1].own[1] = edges[0].own[1]


def shared_statistics(supernet: Supernet) -> None:
    first, second, *_ = (edge.own[1] for edge in layers(supernet, MixedOperation))
    second.running_mean, second.running_var = first.running_mean, first.running_var


def other_last_layer(supernet: Supernet) -> None:
    for edge in layers(supernet, MixedOperation)[1:]:
        edge.own[2] = nn.ELU()


def weight_norm(convolution: nn.Conv2d) -> None:
    nn.utils.parametrizations.weight_norm(convolution)


def spectral_norm(convolution: nn.Conv2d) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        nn.utils.parametrizations.spectral_norm(convolution)


class Halved(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


def untracked(norm: nn.BatchNorm2d) -> None:
    norm.track_running_stats = False


def without_statistics(norm: nn.BatchNorm2d) -> None:
    norm.running_mean = norm.running_var = norm.num_batches_tracked = None


def without_affine(norm: nn.BatchNorm2d) -> None:
    norm.weight = norm.bias = None  # type: ignore[assignment]


def with_affine(norm: nn.BatchNorm2d) -> None:
    """Terms in a norm whose `affine` is not true."""
    norm.weight = nn.Parameter(torch.linspace(1, 2, C, dtype=torch.double))
    norm.bias = nn.Parameter(torch.linspace(0, 1, C, dtype=torch.double))


def pruned(convolution: nn.Conv2d) -> None:
    prune.l1_unstructured(convolution, "weight", amount=0.5)


def pruned_for_good(convolution: nn.Conv2d) -> None:
    pruned(convolution)
    prune.remove(convolution, "weight")


def narrower(supernet: Supernet) -> None:
    """One kernel of 1x1 where others have 3x3, set from outside."""
    edge = layers(supernet, MixedOperation)[0]
    edge.own[0].weight = nn.Parameter(edge.own[0].weight.detach()[:, :, 1:2, 1:2].clone())
    edge.own[0].padding = (0, 0)


def node_forward(supernet: Supernet) -> None:
    replaced_forward(layers(supernet, Node)[-1])


CHANGES: dict[str, Callable[[Supernet], object]] = {
    "dilation": each(nn.Conv2d, dilated, every=3),
    "padding mode": each(nn.Conv2d, setting("padding_mode", "circular"), every=5),
    "pooling": each(nn.AvgPool2d, setting("count_include_pad", True)),
    "slope": each(nn.LeakyReLU, setting("negative_slope", 0.3)),
    "in place": each(nn.LeakyReLU, setting("inplace", True)),
    "setting of one's own": each(Gate, setting("gain", 2.0)),
    "structure of one's own": each(Twice, setting("twice", True)),
    "eps": each(nn.BatchNorm2d, setting("eps", 0.1)),
    "momentum": each(nn.BatchNorm2d, setting("momentum", 0.5)),
    "cumulative average": each(nn.BatchNorm2d, setting("momentum", None)),
    "untracked": each(nn.BatchNorm2d, untracked),
    "all untracked": each(nn.BatchNorm2d, untracked, every=1),
    "without statistics": each(nn.BatchNorm2d, without_statistics),
    "without affine": each(nn.BatchNorm2d, without_affine),
    "with affine": each(nn.BatchNorm2d, with_affine),
    "flag of affine": each(nn.BatchNorm2d, lambda norm: setattr(norm, "affine", not norm.affine)),
    "one norm in eval mode": each(nn.BatchNorm2d, lambda norm: setattr(norm, "train", lambda mode=True: norm)),
    "forward of a convolution": each(nn.Conv2d, replaced_forward, every=3),
    "forward of a sequential": each(nn.Sequential, replaced_forward, every=3),
    "forward of an edge": each(MixedOperation, replaced_forward),
    "forward of a node": node_forward,
    "forward of no connection": each(type(DARTS["none"](C)), setting("forward", lambda x: x + 1)),
    "shared norms": shared_norms,
    "shared statistics": shared_statistics,
    "exchanged layer": other_last_layer,
    "other shape of a kernel": narrower,
    "pruned": each(nn.Conv2d, pruned, every=3),
    "pruned for good": each(nn.Conv2d, pruned_for_good, every=3),
    "parametrized": each(
        nn.Conv2d, lambda layer: parametrize.register_parametrization(layer, "weight", Halved()), every=3
    ),
    "weight norm": each(nn.Conv2d, weight_norm, every=3),
    "spectral norm": each(nn.Conv2d, spectral_norm, every=3),
    "frozen": each(nn.Conv2d, lambda layer: layer.requires_grad_(False)),
    "bias": each(nn.Conv2d, lambda layer: setattr(layer, "bias", None)),
}


NORMS = ("eps", "momentum", "untracked", "without affine", "with affine", "flag of affine", "shared statistics")


@pytest.mark.parametrize(("name", "affine"), [*((name, True) for name in CHANGES), *((name, False) for name in NORMS)])
def test_changes_after_planning(name: str, affine: bool) -> None:
    found = []
    for supernet in supernets(affine):
        CHANGES[name](supernet)
        found.append(results(supernet))
    assert_equal(*found)


@pytest.mark.parametrize("name", ["dilation", "momentum", "shared norms", "forward of an edge"])
def test_changes_of_a_copy(name: str) -> None:
    """They concern the copy alone, whose plans are its own."""
    found = []
    for supernet in supernets(True):
        other = copy.deepcopy(supernet)
        CHANGES[name](other)
        found.append([*results(other), *results(supernet)])
    assert_equal(*found)


def test_sampled_candidates_see_changes_too() -> None:
    found = []
    for supernet in supernets(True, relaxation="gumbel"):
        each(nn.Conv2d, dilated, every=1)(supernet)
        each(nn.BatchNorm2d, setting("eps", 0.1), every=1)(supernet)
        each(nn.Sequential, replaced_forward)(supernet)
        for step in range(6):
            supernet.on_progress(step, 6)
            found.append(results(supernet))
    for plain, planned in zip(found[:6], found[6:], strict=True):
        assert_equal(plain, planned)


def test_a_replaced_forward_of_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = supernets(True)
    monkeypatch.setattr(nn.LeakyReLU, "forward", lambda self, x: x.sin())
    assert_equal(*map(results, pair))


def test_what_was_changed_back_is_planned_again() -> None:
    _, planned = supernets(True)
    expected = results(planned)
    norm = layers(planned, nn.BatchNorm2d)[0]
    plans = []
    for momentum in (norm.momentum, None, norm.momentum):
        norm.momentum = momentum
        planned(image())
        *_, plan = cast(Any, planned.network).evaluation._plans.values()
        plans.append(sum(len(source.alone) for source in plan.sources))
    assert plans[0] == plans[2] < plans[1]
    assert len(expected) == len(results(planned))


def test_an_unchanged_cell_keeps_its_plans() -> None:
    """Also one whose modules of unknown classes change their settings at every step."""

    def space(choose: Chooser, /) -> nn.Module:
        return Cell(
            choose, "c", {"conv": lambda: nn.Conv2d(C, C, 1), "drop": lambda: nn.Dropout(0.1)}, inputs=1, nodes=2
        )

    supernet = Supernet(SearchSpace("s", space))
    surveys = set()
    for step in range(4):
        for dropout in layers(supernet, nn.Dropout):
            dropout.p = step / 10
        supernet.train(step % 2 == 0)(image().float())
        surveys.add(id(cast(Any, supernet.network).evaluation._survey))
    assert len(surveys) == 1


@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")  # for a module without such an input
@pytest.mark.parametrize("kind", ["forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook"])
def test_hooks_of_all_modules_hear_every_call(kind: str) -> None:
    heard: dict[Supernet, list[str]] = {}
    for supernet in supernets(True):
        names = {module: name for name, module in supernet.named_modules()}
        calls = heard.setdefault(supernet, [])

        def hear(module: nn.Module, *_: Any, names: Any = names, calls: Any = calls) -> None:
            calls.append(names.get(module, "another"))

        with getattr(nn.modules.module, f"register_module_{kind}")(hear):
            supernet(image().requires_grad_()).sum().backward()
    plain, planned = heard.values()
    assert len(plain) > 50
    assert sorted(plain) == sorted(planned)


def test_statistics_of_data_are_taken_anew() -> None:
    """Of stochastic weight averaging, whose norms take a cumulative average."""
    found = []
    for supernet in supernets(True):
        torch.optim.swa_utils.update_bn([image() + i for i in range(3)], supernet)
        found.append([*map(torch.clone, supernet.buffers()), *results(supernet)])
    assert_equal(*found)


def loss_of(supernet: Supernet) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
    """As a function of arch parameters and an image, in eval mode: torch maps no training mode of a tracked norm."""
    supernet.eval()
    buffers = dict(supernet.named_buffers())
    return lambda arch, x: functional_call(supernet, {**arch, **buffers}, (x,)).square().mean()


def arch(supernet: Supernet) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in supernet.named_parameters() if name.startswith("arch.")}


TRANSFORMS: dict[str, Callable[[Supernet], Any]] = {
    "grad": lambda s: func.grad(loss_of(s))(arch(s), image()),
    "vmap": lambda s: func.vmap(loss_of(s), (None, 0))(arch(s), torch.stack([image(), image() + 1])),
    "vmap of a gradient": lambda s: func.vmap(func.grad(loss_of(s), 1), (None, 0))(
        arch(s), torch.stack([image(), image() + 1])
    ),
    "jacrev": lambda s: func.jacrev(loss_of(s))(arch(s), image()),
    "jacfwd": lambda s: func.jacfwd(loss_of(s))(arch(s), image()),
    "hessian": lambda s: func.hessian(loss_of(s))(arch(s), image()),
    "jvp": lambda s: func.jvp(lambda x: loss_of(s)(arch(s), x), (image(),), (image(),)),
    "forward mode": lambda s: dual(lambda x: loss_of(s)(arch(s), x)),
    "checkpoint": lambda s: torch.autograd.grad(
        checkpoint(s.train(), image(), use_reentrant=False).square().sum(), list(s.parameters()), allow_unused=True
    ),
    "hessian vector product": lambda s: torch.autograd.functional.hvp(
        lambda x: loss_of(s)(arch(s), x), image(), image()
    ),
}


def dual(function: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
    with forward_ad.dual_level():
        return tuple(forward_ad.unpack_dual(function(forward_ad.make_dual(image(), image()))))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own, for `jvp`
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms(name: str) -> None:
    plain, planned = (tree_leaves(TRANSFORMS[name](supernet)) for supernet in supernets(True))
    assert any(isinstance(leaf, Tensor) and leaf.abs().max() > 0 for leaf in plain)
    assert_equal(*([leaf for leaf in leaves if leaf is not None] for leaves in (plain, planned)))
