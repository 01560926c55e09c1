"""TMICS as a whole: one-hot supernets, shared arch parameters, what each level moves, how the middle one answers."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from nas.derive.random import choose_randomly
from nas.genotype.decision import Choice
from nas.genotype.file import Genotype
from nas.multilevel.level import Level
from nas.multilevel.multilevel import Multilevel
from nas.supernet import Supernet
from tmics_space.data import moving_texture, rain
from tmics_space.data.clips import Batch
from tmics_space.data.sources import Films
from tmics_space.space import tmics
from tmics_space.task import DerainConfig, DerainTask

Values = dict[str, Tensor]

TINY: dict[str, Any] = {
    "channels": 2,
    "dna_cells": 1,
    "cna_cells": 1,
    "layers": 1,
    "flow": "zero",
    "frequency": ["none"],
}
HEAVY = ("residual_5x5", "spatial_attention", "channel_attention", "residual_3x3")
LIGHT = ("residual_5x5", "spatial_attention", "dilated_3x3", "channel_attention")


def task(**fields: Any) -> DerainTask:
    clips = Films(films={"none": "none"})
    return DerainTask(DerainConfig(train=clips, test=clips, **fields))


def batch(split: str, index: int) -> Batch:
    """Two windows of rainy texture, (2, 5, 3, 16, 16) in double precision."""
    seed = zlib.crc32(f"{split}/{index}".encode())
    clean = [moving_texture(5, 16, 16, seed + item) for item in range(2)]
    rainy = [rain(clip, "complex25", seed) for clip in clean]
    return Batch(torch.stack(rainy).double() / 255, torch.stack(clean).double() / 255)


def tiny(seed: int = 0, evaluation: Any = "planned", **options: Any) -> Supernet:
    """A supernet in double precision, at a point of its own: no zeros, and nothing that depends on how layers start."""
    supernet = Supernet(tmics, seed=seed, evaluation=evaluation, **TINY | options).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in supernet.named_parameters():
            scale = 0.5 if name.startswith(("arch", "network.averaging")) else 0.3
            noise = scale * torch.randn(parameter.shape, generator=generator, dtype=torch.double)
            centred = name.endswith("bias") or (parameter.dim() > 1 and not name.endswith("dictionary"))
            parameter.copy_(noise if centred else parameter + noise)  # else scales, slopes, the formula's streaks
    return supernet


# --- point 5


def choices(cell: tuple[str, ...], **macro: Choice) -> dict[str, Choice]:
    return {**macro, **{f"cell/{i}": operation for i, operation in enumerate(cell, 1)}}


@pytest.mark.parametrize(
    ("evaluation", "dtype"), [("plain", torch.float32), ("plain", torch.float64), ("planned", torch.float64)]
)
@pytest.mark.parametrize("dna_input", ["sum", "concat"])
def test_point_05_a_one_hot_supernet_is_the_derived_network(
    evaluation: str, dtype: torch.dtype, dna_input: str
) -> None:
    """Bit for bit in plain evaluation; a planned one adds up in another order."""
    flow = {"name": "pyramid", "width": 4, "levels": 2}
    options: dict[str, Any] = {"channels": 4, "layers": 4, "flow": flow, "dna_input": dna_input}
    options["frequency"] = ["none", "gf2", "gf3"]
    supernet = tiny(evaluation=evaluation, **options).to(dtype)
    frames = batch("any", 0).rainy.to(dtype)
    with torch.no_grad():
        supernet(frames)  # moves the statistics of norms
    supernet.eval()
    drawn = choose_randomly(supernet.decisions, torch.Generator().manual_seed(0))
    heavy = choices(HEAVY, alignment="tgm", frequency="gf2")
    light = choices(LIGHT, alignment="ofm", frequency="none")
    for chosen in (heavy, light, drawn):
        genotype = Genotype(space="tmics", options=supernet.options, choices=chosen)
        with torch.no_grad():
            derived = supernet.derived(genotype)(frames)
            with supernet.fixed(genotype):
                fixed = supernet(frames)
            for label, logits in supernet.arch.items():  # the softmax underflows to exact zeros
                position = supernet.decisions[label].candidates.index(chosen[label])
                logits.zero_()[position] = 1e4
            softmax = supernet(frames)
        assert supernet.derive().choices == chosen
        for field, expected in derived._asdict().items():
            for found in (getattr(fixed, field), getattr(softmax, field)):
                torch.testing.assert_close(found, expected, rtol=0, atol=0 if evaluation == "plain" else 1e-11)


# --- point 6


def arch_gradients(supernet: Supernet, loss: Callable[[nn.Module, Batch], Tensor]) -> Values:
    gradients = torch.autograd.grad(
        loss(supernet, batch("val", 0)), list(supernet.arch.values()), allow_unused=True, materialize_grads=True
    )
    return dict(zip(supernet.arch, gradients, strict=True))


def detaching(route: nn.Module) -> Any:
    """Freeze a branch: what it makes passes no gradient on."""
    return route.register_forward_hook(lambda module, inputs, output: output.detach())


@pytest.mark.parametrize("mode", ["branches", "all", "fused"])
def test_point_06_each_branch_has_its_share_of_the_arch_gradient(mode: str) -> None:
    """Every path from a shared arch parameter to a loss leads through one of the branches, so the shares add up."""
    supernet, loss = tiny(layers=2), task(eta=0.7).losses[mode]
    network: Any = supernet.network
    total = arch_gradients(supernet, loss)
    with detaching(network.cna):
        dna = arch_gradients(supernet, loss)
    with detaching(network.dna):
        cna = arch_gradients(supernet, loss)
    for label in ("alignment", "cell/1", "cell/2"):
        assert dna[label].norm() > 1e-6
        assert cna[label].norm() > 1e-6
        torch.testing.assert_close(dna[label] + cna[label], total[label], rtol=1e-9, atol=1e-14)


def test_point_06_freezing_a_branch_removes_exactly_its_share() -> None:
    supernet, losses = tiny(layers=2), task().losses
    network: Any = supernet.network
    alone = arch_gradients(supernet, losses["dna"])  # L_D of the dominant branch
    with detaching(network.cna):
        frozen = arch_gradients(supernet, losses["branches"])  # L_D + L_C
    assert all(torch.equal(frozen[label], alone[label]) for label in alone)
    assert any(gradient.any() for gradient in alone.values())
    with detaching(network.dna), detaching(network.cna):
        nothing = arch_gradients(supernet, losses["all"])
    assert not any(gradient.any() for gradient in nothing.values())


def test_point_06_untied_networks_share_no_gradient() -> None:
    gradients = arch_gradients(tiny(tied=False), task().losses["dna"])
    assert gradients["dna/1"].any()
    assert not gradients["cna/1"].any()


# --- point 7


LOWER, MIDDLE, UPPER = (("network.*", "!network.averaging.*"), ("network.averaging.*",), ("arch.*",))


def levels(hypergradient: dict[str, Any] | None = None, *, rate: float = 5.0, **upper: Any) -> dict[str, Level]:
    return {
        "lower": Level(parameters=LOWER, loss="lower", split="train", optimizer={"name": "sgd", "lr": 0.05}, clip=5.0),
        "middle": Level(parameters=MIDDLE, loss="fused", split="middle", optimizer={"name": "sgd", "lr": rate}),
        "upper": Level(
            parameters=UPPER,
            loss="all",
            split="val",
            optimizer={"name": "adam", "lr": 1e-2, "betas": (0.5, 0.999)},
            hypergradient=hypergradient or {},
            **upper,
        ),
    }


FIRST_ORDER: dict[str, Any] = {}
THROUGH_BOTH = {"lower": {"name": "unrolled"}, "middle": {"name": "unrolled"}}


@pytest.mark.parametrize("hypergradient", [FIRST_ORDER, THROUGH_BOTH], ids=["first order", "through both levels"])
def test_point_07_each_level_changes_only_its_own(hypergradient: dict[str, Any]) -> None:
    flow = {"name": "pyramid", "width": 4, "levels": 2}
    supernet = tiny(flow=flow, frequency=["none", "gf2"])
    terms = ({"name": "entropy", "weight": 0.01, "ramp": True},)
    engine = Multilevel(supernet, levels(hypergradient, rate=0.1, regularizers=terms), task().losses, batch, 10)
    changed: list[tuple[str, set[str]]] = []
    before = snapshot(supernet)

    def note(level: str) -> None:
        nonlocal before
        now = snapshot(supernet)
        changed.append((level, {name for name in now if not torch.equal(now[name], before[name])}))
        before = now

    for name, optimizer in engine.optimizers.items():
        # What has changed since the last step of any level: first in its passes, then in its optimizer.
        optimizer.register_step_pre_hook(lambda *_, name=name: note(f"{name} passes"))
        optimizer.register_step_post_hook(lambda *_, name=name: note(name))
    for k in range(2):
        engine.step(k)
    parameters = {name for name, _ in supernet.named_parameters()}
    averaging = {name for name in parameters if name.startswith("network.averaging.")}
    arch = {name for name in parameters if name.startswith("arch.")}
    order = ["lower passes", "lower", "middle passes", "middle", "upper passes", "upper"]
    assert [level for level, _ in changed] == 2 * order
    for level, names in changed:
        if level == "lower passes":  # batch norms see the data of this level alone
            assert names
            assert not names & parameters
        elif level.endswith("passes"):
            assert not names
        else:
            assert names == {"lower": parameters - averaging - arch, "middle": averaging, "upper": arch}[level]


def snapshot(supernet: Supernet) -> Values:
    return {name: value.clone() for name, value in supernet.state_dict().items()}


def test_point_07_warm_up_moves_the_operation_weights_alone() -> None:
    supernet = tiny()
    warm = {name: level for name, level in levels(warmup=0.5).items() if name != "middle"}
    engine = Multilevel(supernet, warm, task().losses, batch, 4)
    arch = [value.clone() for value in supernet.arch.values()]
    moved = [set(engine.step(k)) for k in range(2)]
    assert moved == [{"lower"}, {"lower"}]
    assert all(torch.equal(a, b) for a, b in zip(arch, supernet.arch.values(), strict=True))
    assert set(engine.step(2)) == {"lower", "upper"}


# --- the middle level's response


class Answers:
    """The levels' answers to the arch parameters by their definition: steps of gradient descent, one level after the
    other, and the upper loss behind them."""

    def __init__(self, supernet: Supernet, through: tuple[str, ...], losses: Any, index: int = 1) -> None:
        self.supernet = supernet
        self.index = index  # of the batches on which the lower levels answer: those of their next steps
        self.through = through
        self.losses = losses
        self.levels = levels()

    def __call__(self, arch: Values) -> float:
        values = {name: value.detach() for name, value in self.supernet.named_parameters()} | arch
        for name in self.through:
            level = self.levels[name]
            own = {n: v.clone().requires_grad_() for n, v in values.items() if self.owns(name, n)}
            loss = self.loss(level, values | own)
            gradients = torch.autograd.grad(loss, list(own.values()), allow_unused=True, materialize_grads=True)
            norm = torch.cat([g.flatten() for g in gradients]).norm()
            scale = min(1.0, level.clip / (norm.item() + 1e-6)) if level.clip else 1.0
            steps = zip(own.items(), gradients, strict=True)
            values |= {n: (v - level.optimizer["lr"] * scale * g).detach() for (n, v), g in steps}
        return self.loss(self.levels["upper"], values).item()

    def loss(self, level: Level, values: Values) -> Tensor:
        network: Any = partial(functional_call, self.supernet, values)
        index = 0 if level is self.levels["upper"] else self.index
        found: Tensor = self.losses[level.loss](network, batch(level.split, index))
        return found

    @staticmethod
    def owns(level: str, name: str) -> bool:
        kind = "upper" if name.startswith("arch.") else "middle" if ".averaging." in name else "lower"
        return kind == level


def directions(supernet: Supernet, count: int = 2) -> Iterator[Values]:
    generator = torch.Generator().manual_seed(5)
    for _ in range(count):
        yield {
            f"arch.{label}": torch.randn(logits.shape, generator=generator, dtype=torch.double)
            for label, logits in supernet.arch.items()
        }


def along(gradients: Values, direction: Values) -> float:
    return sum(float((gradients[name] * direction[name]).sum()) for name in direction)


def difference(function: Callable[[Values], float], at: Supernet, way: Values, h: float) -> float:
    """The central difference of a function of the arch parameters."""
    here = {f"arch.{label}": logits.detach() for label, logits in at.arch.items()}
    up, down = (function({n: value + sign * h * way[n] for n, value in here.items()}) for sign in (1, -1))
    return (up - down) / (2 * h)


@pytest.mark.parametrize("averaging", ["channel", "pixel"])
@pytest.mark.parametrize("through", [("middle",), ("lower", "middle")], ids="+".join)
def test_the_arch_gradient_goes_through_unrolled_levels(through: tuple[str, ...], averaging: str) -> None:
    supernet, losses = tiny(averaging=averaging), task().losses
    total = arch_hypergradient(supernet, losses, {name: {"name": "unrolled"} for name in through})
    first = arch_hypergradient(supernet, losses, {})
    oracle = Answers(supernet, through, losses)
    for direction in directions(supernet):
        expected = difference(oracle, supernet, direction, 1e-6)
        assert along(total, direction) == pytest.approx(expected, rel=1e-4)
        assert abs(along(first, direction) - expected) > 1e-2 * abs(expected)


def test_the_arch_gradient_goes_through_the_solution_of_the_middle_level() -> None:
    """One free weight whose problem is solved again at each end of the difference; SSIM alone, which is smooth."""
    supernet, losses = tiny(seed=7, averaging="free"), task(l1=0.0).losses
    (name,) = (name for name, _ in supernet.named_parameters() if ".averaging." in name)
    values = {n: value.detach() for n, value in supernet.named_parameters()}
    oracle = Answers(supernet, (), losses, index=0)

    def solution(arch: Values) -> Tensor:
        weight = torch.tensor(0.475, dtype=torch.double, requires_grad=True)
        for _ in range(8):  # Newton's method
            loss = oracle.loss(oracle.levels["middle"], values | arch | {name: weight})
            (slope,) = torch.autograd.grad(loss, weight, create_graph=True)
            (curvature,) = torch.autograd.grad(slope, weight)
            assert curvature > 0  # a minimum
            weight = (weight - slope / curvature).detach().requires_grad_()
        assert slope.abs() < 1e-12
        return weight.detach()

    def solved(arch: Values) -> float:
        return oracle.loss(oracle.levels["upper"], values | arch | {name: solution(arch)}).item()

    supernet.get_parameter(name).data.copy_(solution({}))
    total = arch_hypergradient(supernet, losses, {"middle": {"name": "implicit", "damping": 0.0, "batches": "repeat"}})
    first = arch_hypergradient(supernet, losses, {})
    for direction in directions(supernet):
        expected = difference(solved, supernet, direction, 1e-5)
        assert along(total, direction) == pytest.approx(expected, rel=1e-5)
        assert abs(along(first, direction) - expected) > 1e-2 * abs(expected)


@pytest.mark.parametrize("ridge", [0.0, 0.03])
def test_the_arch_gradient_goes_through_the_closed_form_of_the_averaging(ridge: float) -> None:
    """At any weight, and by any step: as if the weight were the closed form, on the batch of the middle level."""
    supernet, losses = tiny(seed=7, averaging="free"), task(l1=0.0).losses
    (name,) = (name for name, _ in supernet.named_parameters() if ".averaging." in name)
    values = {n: value.detach() for n, value in supernet.named_parameters()}
    oracle = Answers(supernet, (), losses)

    def optimum(arch: Values) -> Tensor:
        seen = batch("middle", 1)
        with torch.no_grad():
            found: Any = functional_call(supernet, values | arch, (seen.rainy,))
        difference = found.dominant - found.companion
        mu = ridge * difference.numel() / 2  # the loss is a mean, and not halved
        dot = (difference * (seen.clean - found.companion)).sum()
        weight: Tensor = (dot + mu / 2) / (difference.square().sum() + mu)
        return weight

    def solved(arch: Values) -> float:
        return oracle.loss(oracle.levels["upper"], values | arch | {name: optimum(arch)}).item()

    middle = levels()["middle"]
    middle = msgspec.structs.replace(middle, loss="squared")
    closed = {"middle": {"name": "closed", "ridge": ridge, "center": 0.5}}
    engine = Multilevel(supernet, levels(closed) | {"middle": middle}, losses, batch, 10)
    loss, total = engine.gradient("upper", 0)
    assert loss.item() == pytest.approx(solved({}), rel=1e-10)
    for direction in directions(supernet):
        expected = difference(solved, supernet, direction, 1e-5)
        assert along(total, direction) == pytest.approx(expected, rel=1e-5)
    at_optimum = tiny(seed=7, averaging="free")
    at_optimum.get_parameter(name).data.copy_(optimum({}))
    first = arch_hypergradient(at_optimum, losses, {})
    assert any(abs(along(first, d) - along(total, d)) > 1e-2 * abs(along(total, d)) for d in directions(supernet))


def test_a_middle_level_that_sees_detached_branches_would_not_answer() -> None:
    """So the tests above notice it."""

    def detached(network: Any, batch: Batch) -> Tensor:
        with detaching(network.network.dna), detaching(network.network.cna):
            return losses["fused"](network, batch)

    supernet, losses = tiny(), dict(task().losses)
    implicit = {"middle": {"name": "implicit", "damping": 0.2}}
    first = arch_hypergradient(supernet, losses, {})
    total = arch_hypergradient(supernet, losses, implicit)
    mutated = arch_hypergradient(supernet, losses | {"fused": detached}, implicit)
    assert any((total[name] - first[name]).norm() > 1e-2 * first[name].norm() for name in first)
    for name in first:
        torch.testing.assert_close(mutated[name], first[name])


def arch_hypergradient(supernet: Supernet, losses: Any, hypergradient: dict[str, Any]) -> Values:
    return Multilevel(supernet, levels(hypergradient), losses, batch, 10).gradient("upper", 0)[1]
