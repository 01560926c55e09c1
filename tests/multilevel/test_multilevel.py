"""Steps over one, two and three levels of a small network with batch norm, dropout and a mixture, in float64."""

from __future__ import annotations

import copy
import io
import itertools
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import msgspec
import pytest
import torch
from torch import Tensor, nn

from nas.cost.space_cost import costs
from nas.errors import ConfigError, DivergedError, UnknownNameError
from nas.files import convert
from nas.kernels.device import placed
from nas.multilevel.level import Level
from nas.multilevel.multilevel import Moved, Multilevel
from nas.multilevel.regularizers import entropy, expected_cost
from nas.registry import register
from nas.space.chooser import Chooser
from nas.space.definition import search_space
from nas.space.primitives import DropPath
from nas.supernet import Supernet
from quadratic import CLOSED_FORMS, METHODS, Scalars, covering, response
from states import same

PATIENCE = 10


class Net(nn.Module):
    """A mixture of smooth operations with batch norm and dropout (the lower level), and an average with the input."""

    def __init__(self) -> None:
        super().__init__()
        self.arch = nn.Parameter(torch.tensor([0.3, -0.5]))
        self.inputs = nn.Linear(4, 5)
        self.norm = nn.BatchNorm1d(5)
        self.dropout = nn.Dropout(0.3)
        self.outputs = nn.Linear(5, 4)
        self.average = nn.Linear(4, 1)

    def branch(self, x: Tensor) -> Tensor:
        mixing = self.arch.softmax(-1)
        hidden = self.dropout(self.norm(self.inputs(x)))
        branch: Tensor = self.outputs(mixing[0] * nn.functional.silu(hidden) + mixing[1] * hidden.tanh())
        return branch

    def forward(self, x: Tensor) -> Tensor:
        branch = self.branch(x)
        share: Tensor = self.average(branch).sigmoid()
        return share * branch + (1 - share) * x


def lower(net: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.mse_loss(net.branch(batch[0]), batch[1])


def middle(net: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.smooth_l1_loss(net(batch[0]), batch[1])


def upper(net: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
    loss: Tensor = (net(batch[0]) - batch[1]).cosh().log().mean() + 0.1 * net.arch.square().sum()
    return loss


LOSSES = {"lower": lower, "middle": middle, "upper": upper}


def batch(split: str, index: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1000 * index + len(split))
    x, y = torch.randn(2, 6, 4, generator=generator, dtype=torch.float64)
    return x, y


def level(**fields: Any) -> Level:
    return convert(fields, Level, "level")


def three(**changes: dict[str, Any]) -> dict[str, Level]:
    levels: dict[str, dict[str, Any]] = {
        "lower": {
            "parameters": ["inputs.*", "norm.*", "outputs.*"],
            "split": "train",
            "optimizer": {"name": "adam", "lr": 0.05, "weight_decay": 0.01},
        },
        "middle": {
            "parameters": ["average.*"],
            "split": "middle",
            "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
        },
        "upper": {
            "parameters": ["arch"],
            "split": "val",
            "optimizer": {"name": "adamw", "lr": 0.02},
            "hypergradient": {"lower": {"name": "unrolled"}, "middle": {"name": "implicit", "damping": 0.1}},
        },
    }
    return {name: level(**{"loss": name, **fields, **changes.get(name, {})}) for name, fields in levels.items()}


def answering(method: str) -> dict[str, Level]:
    """Three levels of which two answer by a method; by `closed` the middle one alone, of a quadratic loss."""
    if method == "closed":
        return three(
            lower={"parameters": ["inputs.*", "norm.*"]},
            middle={"parameters": ["outputs.*"], "loss": "lower"},
            upper={"hypergradient": {"middle": {"name": "closed", "ridge": 0.1}}},
        )
    return three(upper={"hypergradient": {"lower": covering(method), "middle": covering(method)}})


def build(levels: dict[str, Level] | None = None, steps: int = 20, **others: Any) -> Multilevel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Net().double()
    return Multilevel(net, levels or three(), **{"losses": LOSSES, "batch": batch, **others}, steps=steps)


def snapshot(levels: Multilevel) -> dict[str, Any]:
    """Everything that a step could change."""
    return copy.deepcopy(
        {
            "model": levels.model.state_dict(),
            "gradients": {name: p.grad for name, p in levels.model.named_parameters()},
            "requires_grad": {name: p.requires_grad for name, p in levels.model.named_parameters()},
            "training": {name: module.training for name, module in levels.model.named_modules()},
            "levels": levels.state_dict(),
            "random": torch.get_rng_state(),
        }
    )


# --- who moves what ---


@pytest.mark.parametrize("moving", ["lower", "middle", "upper"])
def test_a_step_changes_its_own_level_and_nothing_else(moving: str) -> None:
    levels = build(three(**{name: {"period": 1 if name == moving else 9} for name in LOSSES}))
    for k in range(3):
        before = snapshot(levels)
        assert list(levels.step(k)) == [moving]
        after = snapshot(levels)
        buffers = {name for name, _ in levels.model.named_buffers()}
        for name, value in after["model"].items():
            changed = not torch.equal(value, before["model"][name])
            if name in buffers:
                assert changed == (moving == "lower"), name
            else:
                assert changed == (name in levels.owned[moving]), name
        for name in LOSSES:
            states = [s["levels"]["optimizers"][name] for s in (before, after)]
            assert same(*states) == (name != moving)
        for kept in ("gradients", "requires_grad", "training"):
            assert same(before[kept], after[kept])


def test_all_parameters_move_over_a_whole_step() -> None:
    levels = build()
    before = snapshot(levels)
    assert list(levels.step(0)) == ["lower", "middle", "upper"]
    changed = {name for name, p in levels.model.named_parameters() if not torch.equal(p, before["model"][name])}
    assert changed == {name for owned in levels.owned.values() for name in owned}


@pytest.mark.parametrize("method", [name for name in METHODS if name != "implicit"])
@pytest.mark.parametrize("name", ["lower", "middle", "upper"])
def test_probing_changes_nothing(name: str, method: str) -> None:
    levels = build(
        answering(method)
        if method == "closed"
        else three(upper={"hypergradient": {"lower": covering(method), "middle": covering("implicit")}})
    )
    for k in range(3):
        levels.step(k)
    before = snapshot(levels)
    first = levels.gradient(name, 3)
    assert same(before, snapshot(levels))
    assert same(first, levels.gradient(name, 3))


def test_responses_draw_no_random_numbers() -> None:
    states = []
    for method in METHODS:
        levels = build(answering(method))
        torch.manual_seed(5)
        levels.step(0)
        states.append(torch.get_rng_state())
    torch.manual_seed(5)
    assert all(torch.equal(state, states[0]) for state in states)
    assert not torch.equal(states[0], torch.get_rng_state())  # the dropout of the levels' own passes did


@pytest.mark.parametrize("answer", [{}, {"lower": {"name": "first_order"}}], ids=["unnamed", "first order"])
@pytest.mark.parametrize("moving", ["lower", "middle", "upper"])
def test_gradients_are_computed_for_the_moving_level_alone(moving: str, answer: dict[str, Any]) -> None:
    attached = []

    def seen(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def wrapped(net: nn.Module, batch: Any) -> Tensor:
            attached.append({name for name, p in net.named_parameters() if p.requires_grad})
            return loss(net, batch)

        return wrapped

    periods: dict[str, Any] = {name: {"period": 1 if name == moving else 9} for name in LOSSES}
    periods["upper"]["hypergradient"] = answer
    levels = build(three(**periods), losses={name: seen(loss) for name, loss in LOSSES.items()})
    attached.clear()
    computed: list[str] = []
    for name, p in levels.model.named_parameters():
        hook: Any = p.register_hook
        hook(lambda gradient, name=name: computed.append(name))
    levels.step(0)
    assert sorted(computed) == sorted(levels.owned[moving])
    assert attached == [set(levels.owned[moving])]


def test_frozen_parameters_belong_to_no_level() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Net().double()
    net.inputs.requires_grad_(False)
    levels = Multilevel(net, three(), LOSSES, batch, steps=3)
    assert levels.owned["lower"] == ["norm.weight", "norm.bias", "outputs.weight", "outputs.bias"]
    before = net.inputs.weight.clone()
    levels.step(0)
    assert torch.equal(net.inputs.weight, before)


# --- hypergradients of the whole inner step ---


@pytest.mark.parametrize("answering", [["lower"], ["middle"], ["lower", "middle"]], ids="-".join)
@pytest.mark.parametrize("clip", [None, 0.2])
@pytest.mark.parametrize("warm", [0, 4])
def test_hypergradient_equals_central_differences_of_what_the_levels_below_really_do(
    warm: int, clip: float | None, answering: list[str]
) -> None:
    responses = {name: {"name": "unrolled"} for name in reversed(answering)}
    below: dict[str, Any] = {"clip": clip, "schedule": "cosine"}
    levels = build(three(lower=below, middle=below, upper={"period": 20, "hypergradient": responses}))
    for k in range(warm):
        levels.step(k)
    torch.manual_seed(7)
    masks = torch.get_rng_state()
    _, found = levels.gradient("upper", warm)

    def after(shift: Tensor) -> float:
        """The upper loss, once copies of the optimizers have taken a step at shifted arch parameters."""
        net, optimizers = copy.deepcopy((levels.model, levels.optimizers))
        assert isinstance(net, Net)
        with torch.no_grad():
            net.arch.add_(shift)
        torch.set_rng_state(masks)
        for name in answering:
            own = [p for p_name, p in net.named_parameters() if p_name in levels.owned[name]]
            loss = LOSSES[name](net, batch(levels.levels[name].split, warm + 1))
            for p, gradient in zip(own, torch.autograd.grad(loss, own), strict=True):
                p.grad = gradient
            if clip is not None:
                nn.utils.clip_grad_norm_(own, clip)
            optimizers[name].param_groups[0]["lr"] = levels.levels[name].lr(warm + 1, 20)
            optimizers[name].step()
            torch.set_rng_state(masks)  # every response draws what the level's own pass does
        return upper(net, batch("val", warm)).item()

    h = 1e-5
    units = torch.eye(2, dtype=torch.float64)
    expected = torch.tensor([(after(h * u) - after(-h * u)) / (2 * h) for u in units], dtype=torch.float64)
    torch.testing.assert_close(found["arch"], expected, rtol=1e-5, atol=1e-9)
    first_order = build(three(upper={"hypergradient": {}}))
    first_order.model.load_state_dict(levels.model.state_dict())
    ignored = first_order.gradient("upper", warm)[1]["arch"]
    assert not torch.allclose(ignored, expected, rtol=1e-4)  # else the test would say nothing about the responses


OPTIMIZERS = {
    "momentum": {"name": "sgd", "lr": 0.3, "momentum": 0.9, "weight_decay": 0.01},
    "adam": {"name": "adam", "lr": 0.05, "weight_decay": 0.01},
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"schedule": {"name": "cosine", "final_lr": 0.1}, "clip": 0.05},
        {"schedule": "cosine", "inner_steps": 2, "accumulate": 2},
        {"period": 3, "inner_steps": 2},
        {"warmup": 0.3, "schedule": "cosine"},
    ],
    ids=str,
)
@pytest.mark.parametrize(("k", "ahead"), [(1, 1), (3, 3), (4, 6)])
def test_virtual_steps_are_the_next_ones_that_the_level_really_takes(
    k: int, ahead: int, fields: dict[str, Any], optimizer: dict[str, Any]
) -> None:
    """Warm-up, period, several inner steps and the schedule included."""

    def engine() -> Multilevel:
        unrolled = {"name": "unrolled", "steps": ahead}
        changes = {"lower": {"optimizer": optimizer, **fields}, "upper": {"hypergradient": {"lower": unrolled}}}
        levels = build({name: each for name, each in three(**changes).items() if name != "middle"})
        model: Any = levels.model
        model.dropout.p = 0.0
        return levels

    levels = engine()
    for step in range(k + 1):
        levels.step(step)
    expected = upper_after(copy.deepcopy(levels), k, ahead)
    assert levels.gradient("upper", k)[0].item() == pytest.approx(expected, rel=1e-10, abs=1e-12)
    if levels.levels["lower"].moves(k, levels.steps):
        repeated = {"lower": response("unrolled", steps=ahead, batches="repeat")}
        assert levels.gradient("upper", k, repeated)[0].item() != pytest.approx(expected, rel=1e-6)


def upper_after(levels: Multilevel, k: int, count: int) -> float:
    """The upper loss of search step `k` once the lower level has really taken `count` more steps."""
    real = {"lower": levels.levels["lower"], "upper": msgspec.structs.replace(levels.levels["upper"], period=99)}
    alone = Multilevel(levels.model, real, LOSSES, batch, levels.steps)
    alone.optimizers["lower"].load_state_dict(levels.optimizers["lower"].state_dict())
    taken = itertools.count(1)
    values: dict[str, Tensor] = {}

    def stop(*_: object) -> None:
        if next(taken) == count:
            values.update({name: p.detach().clone() for name, p in levels.model.named_parameters()})

    alone.optimizers["lower"].register_step_post_hook(stop)
    step = k
    while not values:
        step += 1
        alone.step(step)
    with torch.no_grad():
        levels.model.load_state_dict(values, strict=False)
        return upper(levels.model.train(), batch("val", k)).item()


def test_beyond_the_end_of_the_run_the_batches_go_on_at_the_last_rate() -> None:
    changes = {"lower": {"schedule": "cosine"}, "upper": {"hypergradient": {"lower": {"name": "unrolled", "steps": 2}}}}
    asked: list[tuple[str, int]] = []

    def counting(split: str, index: int) -> tuple[Tensor, Tensor]:
        asked.append((split, index))
        return batch(split, index)

    last = build(three(**changes), steps=4, batch=counting)
    forget(last)
    asked.clear()
    found = last.gradient("upper", 3)[1]
    assert [index for split, index in asked if split == "train"] == [4, 5]
    rate = last.levels["lower"].lr(3, 4)
    changes["lower"] = {"optimizer": {"name": "adam", "lr": rate, "weight_decay": 0.01}}
    constant = build(three(**changes), steps=4)
    assert rate > 0
    torch.testing.assert_close(found, constant.gradient("upper", 3)[1])


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("first_order", "closed")])
@pytest.mark.parametrize(
    ("fields", "k", "last", "coming"),
    [
        ({}, 2, [2], [3]),
        ({"inner_steps": 2, "accumulate": 2}, 2, [10, 11], [12, 13]),
        ({"period": 2}, 2, [1], [3]),
        ({"warmup": 0.5}, 2, [10], [10]),  # no step has been taken
    ],
)
def test_a_response_is_to_the_next_batch_or_repeats_the_last(
    method: str, fields: dict[str, Any], k: int, last: list[int], coming: list[int]
) -> None:
    asked: set[tuple[str, int]] = set()

    def counting(split: str, index: int) -> tuple[Tensor, Tensor]:
        asked.add((split, index))
        return batch(split, index)

    one = {"steps": 1} if method == "truncated" else {}
    for batches, expected in (("next", coming), ("repeat", last)):
        levels = build(
            three(lower=fields, upper={"hypergradient": {"lower": covering(method, batches=batches, **one)}}),
            batch=counting,
        )
        forget(levels)
        asked.clear()
        levels.gradient("upper", k)
        assert {index for split, index in asked if split == "train"} == set(expected)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_gauss_newton_reuses_the_gradient_of_the_step_just_taken(accumulate: int) -> None:
    """The rank-one formula with f where the lower step began, and F where it ended."""
    method = {"name": "gauss_newton", "reuse": True, "batches": "repeat"}
    changes = {"lower": {"accumulate": accumulate}, "upper": {"hypergradient": {"lower": method}, "period": 2}}
    levels = build({name: each for name, each in three(**changes).items() if name != "middle"})
    net: Any = levels.model
    net.dropout.p = 0.0
    evaluated = []
    net.norm.register_forward_hook(lambda *_: evaluated.append(1))
    levels.step(0)
    own = [net.get_parameter(name) for name in levels.owned["lower"]]
    losses = [lower(net, batch("train", part)) for part in range(accumulate, 2 * accumulate)]
    *f_w, f_a = torch.autograd.grad(torch.stack(losses).mean(), [*own, net.arch])
    evaluated.clear()

    def check(*_: object) -> None:
        assert len(evaluated) == accumulate + 1  # no pass for the response
        *to_w, to_a = torch.autograd.grad(upper(net, batch("val", 1)), [*own, net.arch])
        along, square = (sum((x * y).sum() for x, y in zip(f_w, each, strict=True)) for each in (to_w, f_w))
        torch.testing.assert_close(net.arch.grad, to_a - along / square * f_a, rtol=1e-10, atol=1e-14)
        checked.append(True)

    checked: list[bool] = []
    levels.optimizers["upper"].register_step_pre_hook(check)
    assert list(levels.step(1)) == ["lower", "upper"]
    assert checked


def test_gauss_newton_computes_the_gradient_where_no_step_was_taken() -> None:
    """Out of a step, and where the level has another gradient, since levels below answer to it; the upper level may see
    these levels respond too, or hold them fixed."""
    answers = {"lower": {"name": "unrolled"}}
    for middle_answers, others in (({}, {}), (answers, answers), (answers, {})):
        found = []
        for reuse in (False, True):
            method = {"name": "gauss_newton", "reuse": reuse, "batches": "repeat"}
            upper_answers = {**others, "middle": method} if middle_answers else {"lower": method}
            levels = build(three(middle={"hypergradient": middle_answers}, upper={"hypergradient": upper_answers}))
            torch.manual_seed(0)
            if middle_answers:
                levels.step(0)
            found.append([levels.gradient("upper", 1), levels.model.state_dict()])
        assert same(*found)


def test_finite_differences_see_the_same_dropout_masks_at_both_points() -> None:
    for warm in (0, 3):
        found = []
        for method in ({"name": "unrolled"}, {"name": "finite_difference", "radius": 1e-4}):
            levels = build(three(upper={"period": 20, "hypergradient": {"lower": method, "middle": method}}))
            torch.manual_seed(7)
            for k in range(warm):
                levels.step(k)
            found.append(levels.gradient("upper", warm)[1]["arch"])
        torch.testing.assert_close(*found, rtol=1e-4, atol=1e-8)


# --- accumulation ---


class Plain(nn.Module):
    """Without batch norm and dropout, so that a batch is nothing but its samples."""

    def __init__(self) -> None:
        super().__init__()
        self.arch = nn.Parameter(torch.tensor([0.3, -0.5]))
        self.inputs = nn.Linear(4, 5)
        self.average = nn.Linear(5, 4)

    def branch(self, x: Tensor) -> Tensor:
        mixing = self.arch.softmax(-1)
        hidden = self.inputs(x)
        branch: Tensor = self.average(mixing[0] * nn.functional.silu(hidden) + mixing[1] * hidden.tanh())
        return branch

    def forward(self, x: Tensor) -> Tensor:
        return self.branch(x).sin()


def split_levels(method: str, accumulate: int) -> Multilevel:
    """Twelve samples a batch, or as many in several; each of the upper two levels' gradients is nonlinear in it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Plain().double()
    x, y = torch.randn(2, 12, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    size = 12 // accumulate

    def pieces(split: str, index: int) -> tuple[Tensor, Tensor]:
        part = slice(size * (index % accumulate), size * (index % accumulate + 1))
        return (x if split == "train" else x.flip(0) + 0.1)[part], y[part]

    below = covering(method)
    quadratic = method == "closed"  # the middle level alone, where its loss is
    levels = three(
        lower={"parameters": ["inputs.*"], "accumulate": accumulate, "clip": 0.05},
        middle={"accumulate": accumulate, "clip": 0.05, "loss": "lower" if quadratic else "middle"},
        upper={
            "accumulate": accumulate,
            "clip": 0.05,
            "hypergradient": {"middle": below} if quadratic else {"lower": below, "middle": below},
        },
    )
    return Multilevel(net, levels, LOSSES, pieces, 20)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("accumulate", [2, 4])
def test_splitting_a_batch_and_accumulating_changes_rounding_only(method: str, accumulate: int) -> None:
    whole, split = split_levels(method, 1), split_levels(method, accumulate)
    for k in range(3):
        for engine in (whole, split):
            engine.step(k)
    torch.testing.assert_close(split.model.state_dict(), whole.model.state_dict(), rtol=1e-9, atol=1e-11)
    for one, other in zip(whole.gradient("upper", 3), split.gradient("upper", 3), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-8, atol=1e-10)


def test_accumulation_reads_a_batch_for_each_part() -> None:
    asked, _ = counted(three(lower={"accumulate": 3}, middle={"period": 9}, upper={"period": 9}), 3)
    assert [index for split, index in asked if split == "train"] == list(range(9))


class Watched(torch.autograd.Function):
    """The identity, and what it saves for the backward pass."""

    alive: ClassVar[set[int]] = set()
    numbers: ClassVar[Iterator[int]] = itertools.count()

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        saved, number = x.clone(), next(Watched.numbers)
        ctx.save_for_backward(saved)
        Watched.alive.add(number)
        weakref.finalize(saved, Watched.alive.discard, number)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Tensor:
        return cotangents[0]


@pytest.mark.parametrize(
    ("method", "most"),
    [("first_order", 1), ("finite_difference", 1), ("gauss_newton", 1), ("unrolled", 4)],  # unrolled steps keep all
)
def test_accumulation_keeps_what_one_part_saves(method: str, most: int) -> None:
    alive = []

    def watched(net: Any, batch: Any) -> Tensor:
        loss: Tensor = Watched.apply(lower(net, batch))  # type: ignore[no-untyped-call]
        alive.append(len(Watched.alive))
        return loss

    levels = build(
        three(lower={"accumulate": 4}, upper={"hypergradient": {"lower": {"name": method}}}),
        losses={**LOSSES, "lower": watched},
    )
    alive.clear()
    levels.step(0)
    assert max(alive) == most
    assert len(alive) == {"first_order": 4, "finite_difference": 16, "gauss_newton": 8, "unrolled": 8}[method]


@pytest.mark.parametrize(("method", "expected"), CLOSED_FORMS)
def test_sign_toy(method: dict[str, Any], expected: float) -> None:
    levels = {
        "lower": level(parameters=["w"], loss="f", split="s", optimizer={"name": "sgd", "lr": 0.1}),
        "upper": level(
            parameters=["a"], loss="F", split="s", optimizer={"name": "sgd", "lr": 1}, hypergradient={"lower": method}
        ),
    }
    losses = {"f": Scalars.lower, "F": Scalars.upper}
    found = Multilevel(Scalars(), levels, losses, lambda split, index: None, 1).gradient("upper", 0)[1]
    assert found["a"].item() == pytest.approx(expected, abs=1e-12)


# --- when, with which batch, and how fast ---


def forget(levels: Multilevel) -> None:
    """Read again what the checks before the first step left in memory."""
    levels.batch.clear()


def counted(levels: dict[str, Level], steps: int) -> tuple[list[tuple[str, int]], list[list[str]]]:
    asked: list[tuple[str, int]] = []

    def counting(split: str, index: int) -> tuple[Tensor, Tensor]:
        asked.append((split, index))
        return batch(split, index)

    engine = build(levels, steps, batch=counting)
    forget(engine)
    asked.clear()
    moved = [list(engine.step(k)) for k in range(steps)]
    return asked, moved


def test_warm_up_period_and_inner_steps() -> None:
    levels = three(
        lower={"inner_steps": 2}, middle={"warmup": 0.5}, upper={"warmup": 0.25, "period": 3, "hypergradient": {}}
    )
    asked, moved = counted(levels, 8)
    assert [k for k in range(8) if "lower" in moved[k]] == list(range(8))
    assert [k for k in range(8) if "middle" in moved[k]] == [4, 5, 6, 7]
    assert [k for k in range(8) if "upper" in moved[k]] == [4, 7]
    assert [index for split, index in asked if split == "train"] == list(range(16))
    assert [index for split, index in asked if split == "middle"] == [4, 5, 6, 7]
    assert [index for split, index in asked if split == "val"] == [4, 7]


def test_responses_read_the_batch_of_the_level_that_responds_and_read_it_once() -> None:
    for ahead in (1, 3):  # as many batches of the lower level as it takes virtual steps, the first three at once
        method = {"lower": {"name": "unrolled", "steps": ahead}, "middle": {"name": "implicit"}}
        asked, _ = counted(three(upper={"hypergradient": method}), 3)
        first = [("train", 0), ("middle", 0), *(("train", 1 + i) for i in range(ahead)), ("middle", 1), ("val", 0)]
        rest = [[("train", 1 + ahead + k), ("middle", k + 2), ("val", k + 1)] for k in (0, 1)]
        assert asked == [*first, *rest[0], *rest[1]]


def test_modes_are_each_levels_own_and_restored() -> None:
    seen: list[tuple[str, bool, bool]] = []

    def watching(name: str) -> Callable[..., Tensor]:
        def loss(net: Net, batch: Any) -> Tensor:
            seen.append((name, net.training, net.norm.training))
            return LOSSES[name](net, batch)

        return loss

    levels = build(three(upper={"mode": "eval"}), losses={name: watching(name) for name in LOSSES})
    levels.model.eval()
    assert isinstance(levels.model, Net)
    levels.model.norm.train()
    seen.clear()
    levels.gradient("upper", 0)
    assert set(seen) == {("lower", True, True), ("middle", True, True), ("upper", False, False)}
    assert (levels.model.training, levels.model.norm.training) == (False, True)


def test_plain_training_equals_a_loop_in_torch() -> None:
    fields = {"loss": "lower", "split": "train", "clip": 0.5, "schedule": "cosine"}
    optimizer = {"name": "sgd", "lr": 0.2, "momentum": 0.9, "weight_decay": 0.01}
    only = level(parameters=["*", "!average.*"], optimizer=optimizer, **fields)
    levels = build({"all": only}, steps=5)
    net = copy.deepcopy(levels.model)
    own = [p for name, p in net.named_parameters() if not name.startswith("average")]
    theirs = torch.optim.SGD(own, lr=0.2, momentum=0.9, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, T_max=5)
    torch.manual_seed(3)
    for k in range(5):
        levels.step(k)
    torch.manual_seed(3)
    for k in range(5):
        theirs.zero_grad()
        torch.autograd.backward(lower(net, batch("train", k)))
        nn.utils.clip_grad_norm_(own, 0.5)
        theirs.step()
        schedule.step()
    torch.testing.assert_close(levels.model.state_dict(), net.state_dict(), rtol=1e-12, atol=1e-12)


def line(net: Any, batch: Any) -> Tensor:
    """A loss of constant gradient (3, 4)."""
    slope: Tensor = 3 * net.w + 4 * net.a
    return slope


@pytest.mark.parametrize(("clip", "scale"), [(None, 1.0), (10.0, 1.0), (5.1, 1.0), (2.5, 0.5), (0.05, 0.01)])
def test_clipping_scales_the_gradient_to_a_norm(clip: float | None, scale: float) -> None:
    toy = Scalars()
    only = level(parameters=["*"], loss="line", split="s", optimizer={"name": "sgd", "lr": 0.1}, clip=clip)
    moved = Multilevel(toy, {"only": only}, {"line": line}, lambda split, index: None, 1).step(0)
    assert moved == {"only": Moved(loss=8.0, gradient=5.0)}
    assert toy.w.item() == pytest.approx(2 - 0.3 * scale, abs=1e-6)
    assert toy.a.item() == pytest.approx(0.5 - 0.4 * scale, abs=1e-6)


UNROLLED = {"name": "unrolled"}


def test_the_schedule_sets_the_rate_of_each_step() -> None:
    toy = Scalars()
    fields: dict[str, Any] = {"schedule": {"name": "cosine", "final_lr": 0.2}, "warmup": 0.2}
    only = level(parameters=["w"], loss="line", split="s", optimizer={"name": "sgd", "lr": 0.1}, **fields)
    engine = Multilevel(toy, {"only": only}, {"line": line}, lambda split, index: None, 10)
    for k in range(10):
        engine.step(k)
    assert toy.w.item() == pytest.approx(2 - 3 * sum(only.lr(k, 10) for k in range(2, 10)))


@pytest.mark.parametrize("span", [(0.0, 1.0), (0.5, 0.75)])
def test_a_loss_may_depend_on_the_share_of_the_run_that_is_done(span: tuple[float, float]) -> None:
    """Also one to which a level above sees this level respond: by its next step, which is that of the next progress."""

    def scaled(model: Any, batch: object, progress: float = 7.0) -> Any:
        return progress * model.w

    def above(model: Any, batch: object) -> Any:
        return model.w * model.a

    toy, rate = Scalars(), {"name": "sgd", "lr": 0.1}
    levels = {
        "lower": level(parameters=["w"], loss="scaled", split="s", optimizer=rate),
        "upper": level(parameters=["a"], loss="above", split="s", optimizer=rate, hypergradient={"lower": UNROLLED}),
    }
    losses = {"scaled": scaled, "above": above}
    engine = Multilevel(toy, levels, losses, lambda split, index: None, 4, span=span)
    progress = [span[0] + (span[1] - span[0]) * k / 4 for k in range(5)]
    w, a = 2.0, toy.a.item()
    for k in range(4):
        engine.step(k)
        w -= 0.1 * progress[k]
        a -= 0.1 * (w - 0.1 * progress[k + 1])
        assert (toy.w.item(), toy.a.item()) == pytest.approx((w, a))


# --- what is not finite ---


@pytest.mark.parametrize("broken", ["lower", "middle", "upper"])
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(broken: str) -> None:
    splits = {"lower": "train", "middle": "middle", "upper": "val"}

    def sometimes(split: str, index: int) -> tuple[Tensor, Tensor]:
        x, y = batch(split, index)
        return (x * torch.nan if split == splits[broken] and index == 2 else x), y

    only = three(**{name: {"period": 1 if name == broken else 9} for name in LOSSES})
    only["upper"] = three(upper={"hypergradient": {}, "period": 1 if broken == "upper" else 9})["upper"]
    levels = build(only, batch=sometimes)
    for k in range(2):
        levels.step(k)
    before = snapshot(levels)
    moved = levels.step(2)
    after = snapshot(levels)
    assert moved[broken].loss != moved[broken].loss  # not a number
    assert same(before["model"], after["model"])  # batch-norm statistics too
    assert same(before["levels"]["optimizers"], after["levels"]["optimizers"])
    assert same(before["gradients"], after["gradients"])
    assert levels.skipped == {name: int(name == broken) for name in LOSSES}
    levels.step(3)
    assert levels.skipped[broken] == 1
    assert not same(before["model"], snapshot(levels)["model"])


@pytest.mark.parametrize("method", [{"name": "unrolled"}, {"name": "implicit", "damping": 0}])
def test_a_response_that_is_not_finite_skips_the_step_above(method: dict[str, Any]) -> None:
    def broken(net: Any, batch: Any) -> Tensor:
        return middle(net, batch) * torch.nan

    levels = build(
        three(middle={"period": 9}, upper={"hypergradient": {"middle": method}}), losses={**LOSSES, "middle": broken}
    )
    levels.step(0)
    assert levels.skipped == {"lower": 0, "middle": 0, "upper": 1}
    assert levels.model.get_parameter("arch").isfinite().all()


def test_a_finite_loss_with_an_infinite_gradient_is_skipped() -> None:
    toy = Scalars()
    only = level(parameters=["a"], loss="root", split="s", optimizer={"name": "sgd", "lr": 0.1})
    losses: dict[str, Any] = {"root": lambda toy, _: (toy.a - 0.5).sqrt()}
    engine = Multilevel(toy, {"only": only}, losses, lambda split, index: None, 2)
    moved = engine.step(0)["only"]
    assert (moved.loss, moved.gradient) == (0.0, float("inf"))
    assert toy.a.item() == 0.5
    assert engine.skipped == {"only": 1}


def test_a_level_that_stays_broken_stops_the_run() -> None:
    def broken(net: Any, batch: Any) -> Tensor:
        return lower(net, batch) * torch.inf

    levels = build(three(upper={"hypergradient": {}}), losses={**LOSSES, "lower": broken})
    for k in range(PATIENCE - 1):
        levels.step(k)  # the other levels move all the while
    before = snapshot(levels)["model"]
    own = levels.owned["lower"]
    message = (
        rf"^level 'lower' since step 0: {PATIENCE} steps in a row not .* \(loss inf, .*\).* below 0.05, or 'clip'$"
    )
    with pytest.raises(DivergedError, match=message):
        levels.step(PATIENCE - 1)
    after = snapshot(levels)["model"]
    assert same({name: before[name] for name in own}, {name: after[name] for name in own})
    assert not same(before, after)  # the others had their turn, so that a whole step can be saved
    assert levels.skipped == {"lower": PATIENCE, "middle": 0, "upper": 0}


def test_patience_counts_steps_in_a_row() -> None:
    engine_calls = itertools.count()

    def mostly_broken(net: Any, batch: Any) -> Tensor:
        return lower(net, batch) * (1.0 if next(engine_calls) % PATIENCE == PATIENCE - 1 else torch.nan)

    only = {"lower": three()["lower"]}
    levels = build(only, steps=40, losses={"lower": mostly_broken})
    for k in range(40):
        levels.step(k)
    assert levels.skipped["lower"] == 40 - 40 // PATIENCE


# --- resuming ---


@pytest.mark.parametrize("method", METHODS)
def test_levels_that_are_saved_and_loaded_after_any_step_continue_bit_for_bit(method: str) -> None:
    """After steps in which a level moved, did not move, warmed up, or took several inner steps."""
    levels = answering(method)
    changes = {"lower": {"warmup": 0.2}, "middle": {"period": 2}, "upper": {"inner_steps": 2}}
    levels = {name: msgspec.structs.replace(each, **changes[name]) for name, each in levels.items()}
    whole, resumed = build(levels, steps=5), build(levels, steps=5)
    for k in range(5):
        file = io.BytesIO()
        state = {"model": whole.model.state_dict(), "levels": whole.state_dict(), "random": torch.get_rng_state()}
        torch.save(state, file)
        whole.step(k)
        expected = snapshot(whole)
        file.seek(0)
        state = torch.load(file, weights_only=True)
        resumed.model.load_state_dict(state["model"])  # which is a step behind
        resumed.load_state_dict(state["levels"])
        torch.set_rng_state(state["random"])
        resumed.step(k)
        assert same(expected, snapshot(resumed)), f"after {k} steps"
        resumed = build(levels, steps=5) if k == 2 else resumed


def test_a_resumed_run_keeps_counting() -> None:
    def broken(net: Any, batch: Any) -> Tensor:
        return lower(net, batch) * torch.nan

    def engine() -> Multilevel:
        return build({"lower": three()["lower"]}, losses={"lower": broken})

    first, second = engine(), engine()
    for k in range(PATIENCE - 1):
        first.step(k)
    second.load_state_dict(first.state_dict())
    assert second.skipped == {"lower": PATIENCE - 1}
    with pytest.raises(DivergedError):
        second.step(PATIENCE - 1)
    assert first.skipped == {"lower": PATIENCE - 1}


# --- regularizers ---


@search_space("test-multilevel")
def tiny(choose: Chooser, /) -> nn.Module:
    """Two decisions over small layers."""
    first = choose("first", {"linear": lambda: nn.Linear(3, 3), "none": nn.Identity, "tanh": nn.Tanh})
    return nn.Sequential(first, choose("second", {"linear": lambda: nn.Linear(3, 3), "none": nn.Identity}))


def fit(net: nn.Module, x: Tensor) -> Tensor:
    loss: Tensor = (net(x) - 1).square().mean()
    return loss


def regularized(**fields: Any) -> tuple[Supernet, Multilevel]:
    supernet = Supernet(tiny).double()
    with torch.no_grad():
        supernet.arch["first"].copy_(torch.tensor([0.3, -0.2, 0.5]))
    common = {"loss": "fit", "split": "s", "optimizer": {"name": "sgd", "lr": 0.1}}
    levels = {"upper": level(parameters=["arch.*"], **common, **fields)}
    x = torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64)
    return supernet, Multilevel(
        supernet, levels, {"fit": fit}, lambda split, index: x, 10, {"cost": lambda: costs(tiny.describe())}
    )


@pytest.mark.parametrize(("k", "ramped"), [(2, 0.0), (6, 0.5), (8, 0.75)])
def test_regularizers_add_to_the_loss_and_its_gradient(k: int, ramped: float) -> None:
    terms = [{"name": "entropy", "weight": 0.7, "ramp": True}, {"name": "expected_cost", "weight": -0.2}]
    supernet, levels = regularized(regularizers=terms, warmup=0.2)
    _, plain = regularized()
    loss, gradients = levels.gradient("upper", k)
    task_loss, task_gradients = plain.gradient("upper", k)
    first = 0.7 * ramped * entropy(supernet)
    second = -0.2 * expected_cost(supernet, cost=costs(tiny.describe()))
    assert loss.item() == pytest.approx((task_loss + first + second).item())
    expected = torch.autograd.grad(first + second, list(supernet.arch.values()))
    for (name, gradient), extra in zip(gradients.items(), expected, strict=True):
        torch.testing.assert_close(gradient, task_gradients[name] + extra, rtol=1e-12, atol=1e-12)
    moved = levels.step(k)["upper"]
    assert moved.loss == loss.item()
    assert moved.terms == pytest.approx({"entropy": first.item(), "expected_cost": second.item()})


def test_regularizers_are_part_of_what_a_level_responds_to() -> None:
    # A lower level of arch parameters with a term, below a level of operation weights.
    supernet = Supernet(tiny).double()
    common = {"split": "s", "loss": "fit"}
    levels = {
        "lower": level(
            parameters=["arch.*"],
            optimizer={"name": "sgd", "lr": 0.5},
            regularizers=[{"name": "l2_to_uniform", "weight": 3}],
            **common,
        ),
        "upper": level(
            parameters=["network.*"],
            period=9,
            optimizer={"name": "sgd", "lr": 0.1},
            hypergradient={"lower": {"name": "unrolled"}},
            **common,
        ),
    }
    x = torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64)
    with torch.no_grad():
        supernet.arch["first"].copy_(torch.tensor([0.3, -0.2, 0.5]))
    engine = Multilevel(supernet, levels, {"fit": fit}, lambda split, index: x, 10)
    loss, _ = engine.gradient("upper", 0)
    engine.step(0)
    assert loss.item() == pytest.approx(fit(supernet, x).item())  # that after the step really taken


# --- what cannot work ---


@pytest.mark.parametrize(
    ("levels", "error", "message"),
    [
        (three(upper={"parameters": ["alpha"]}), ConfigError, "level 'upper' owns no parameters: none matches alpha;"),
        (three(middle={"parameters": ["a*"]}), ConfigError, "'middle' and 'upper' both own the parameter 'arch'"),
        (
            three(middle={"loss": "midle"}),
            UnknownNameError,
            r"unknown loss of level 'middle' 'midle' \(did you mean 'middle'\?\); known: lower, middle, upper",
        ),
        (
            three(lower={"hypergradient": {"upper": {"name": "implicit"}}}),
            ConfigError,
            "level 'lower': .*, got 'upper'",
        ),
        (three(upper={"regularizers": [{"name": "entropy", "weight": 1}]}), ConfigError, "of a Supernet, got a Net"),
        ({}, ConfigError, "there are no levels"),
    ],
)
def test_levels_that_cannot_work(levels: dict[str, Level], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Multilevel(Net(), levels, LOSSES, batch, 10)


class Halving(torch.optim.SGD):
    """An optimizer of others, without a virtual step."""


@register("optimizer", "test_halving")
def halving(parameters: Any, *, lr: float = 0.5) -> torch.optim.Optimizer:
    return Halving(parameters, lr)


def test_an_optimizer_without_a_virtual_step_is_refused_by_methods_that_unroll_it() -> None:
    lower = {"optimizer": {"name": "test_halving"}}
    build(three(lower=lower, upper={"hypergradient": {"lower": "neumann"}}))
    for method in ("unrolled", "truncated", "finite_difference"):
        with pytest.raises(ConfigError, match=f"'upper', .*'lower' by '{method}': .* Halving .*'virtual_step'"):
            build(three(lower=lower, upper={"hypergradient": {"lower": method}}))


def test_an_unknown_split_is_an_error_before_the_first_step() -> None:
    def strict(split: str, index: int) -> Any:
        if split != "train":
            raise ConfigError(f"unknown split '{split}'")
        return batch(split, index)

    with pytest.raises(ConfigError, match="unknown split 'middle'"):
        build(three(middle={"warmup": 0.9}), batch=strict)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"middle": {"loss": "lower"}},
            r"level 'middle': its loss 'lower' must .* \(average.weight, average.bias\)",
        ),
        (
            {"upper": {"loss": "norm", "hypergradient": {}}},
            r"level 'middle': .* \(average.weight, average.bias\), got 'norm' of level 'upper'",
        ),
        (
            {"middle": {"loss": "own"}, "upper": {"loss": "share", "hypergradient": {}}},
            r"level 'lower': .* \(inputs.weight, inputs.bias and 4 more\), got 'own' of level 'middle', 'share'"
            " of level 'upper'",
        ),
    ],
)
def test_levels_without_influence(changes: dict[str, Any], message: str) -> None:
    losses: dict[str, Any] = {
        **LOSSES,
        "norm": lambda net, _: net.arch.square().sum() + net.inputs.weight.sum(),
        "own": lambda net, _: net.average.weight.square().sum(),
        "share": lambda net, _: net.arch.square().sum() + net.average.weight.sum(),
    }
    with pytest.raises(ConfigError, match=message):
        build(three(**changes), losses=losses)


def test_levels_that_minimise_the_same_are_looked_at_once() -> None:
    seen = []

    def counted(net: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
        seen.append(net.training)
        return upper(net, batch)

    for mode, modes in (("train", [True]), ("eval", [True, False])):
        seen.clear()
        levels = {
            "lower": three(lower={"parameters": ["!arch", "*"], "loss": "same"})["lower"],
            "upper": three(upper={"loss": "same", "mode": mode, "hypergradient": {}})["upper"],
        }
        Multilevel(Net().double(), levels, {"same": counted}, batch, 10)
        assert seen == modes


def test_a_level_reaches_the_upper_loss_through_one_between() -> None:
    losses: dict[str, Any] = {**LOSSES, "share": lambda net, _: net.arch.square().sum() + net.average.weight.sum()}
    build(three(upper={"loss": "share", "hypergradient": {}}), losses=losses)


def test_a_loss_without_the_level_that_a_level_below_answers_to() -> None:
    # The usual optimization of hyperparameters: they enter the upper loss through the lower level alone.
    losses: dict[str, Any] = {**LOSSES, "val": lambda net, _: net.outputs.weight.sum() + net.average.weight.sum()}
    changes = {"loss": "val", "hypergradient": {"lower": {"name": "unrolled"}}}
    assert build(three(upper=changes), losses=losses).gradient("upper", 0)[1]["arch"].abs().min() > 0
    for method in ({}, {"lower": {"name": "first_order"}}):
        with pytest.raises(ConfigError, match=r"level 'upper': its loss 'val' must .* \(arch\)"):
            build(three(upper={**changes, "hypergradient": method}), losses=losses)


def test_looking_for_influence_changes_nothing() -> None:
    torch.manual_seed(2)
    before = torch.get_rng_state()
    levels = build()
    assert torch.equal(torch.get_rng_state(), before)
    assert isinstance(levels.model, Net)
    assert int(levels.model.norm.num_batches_tracked or 0) == 0


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("first_order", "closed")])
def test_only_methods_that_take_steps_need_an_optimizer_that_can_be_differentiated(method: str) -> None:
    levels = build(three(upper={"hypergradient": {"lower": covering(method)}}))
    stepper = levels.steppers["lower"]
    stepper.optimizer = torch.optim.RMSprop(stepper.parameters.values())
    if method in ("unrolled", "truncated", "finite_difference"):
        message = f"^level 'upper', response of 'lower' by '{method}': .* RMSprop .*"
        with pytest.raises(ConfigError, match=message):
            levels.gradient("upper", 1)
    else:
        levels.gradient("upper", 1)


def test_patience_is_each_level_s_own() -> None:
    def broken(net: Any, batch: Any) -> Tensor:
        return middle(net, batch) * torch.nan

    levels = build(three(middle={"patience": 2}, upper={"hypergradient": {}}), losses={**LOSSES, "middle": broken})
    levels.step(0)
    with pytest.raises(DivergedError, match=r"^level 'middle' since step 0: 2 steps in a row not finite"):
        levels.step(1)


def test_modules_hear_of_the_progress_whatever_steps_came_before() -> None:
    net: Any = Net().double()
    net.drop = DropPath(0.2)
    levels = Multilevel(net, three(), LOSSES, batch, 4)
    rates = []
    for k in (0, 1, 3):  # as where a run is resumed
        levels.step(k)
        rates.append(net.drop.p)
    assert rates == pytest.approx([0, 0.05, 0.15])


def test_batches_go_to_the_device_of_the_model() -> None:
    batch = (torch.ones(2), {"a": [torch.ones(1)]}, "b")
    first, rest, text = placed(batch, torch.device("meta"))
    assert (first.is_meta, rest["a"][0].is_meta, text) == (True, True, "b")
