"""Steps that are not finite: they change nothing, and a run that ends in them says where they come from."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.errors import DivergedError
from nas.files import convert
from nas.genotype.file import Genotype
from nas.multilevel.level import Level
from nas.multilevel.multilevel import Multilevel
from nas.space.cell import Cell
from nas.space.chooser import Chooser
from nas.space.definition import SearchSpace
from nas.supernet import Supernet
from states import same


class Faulty(nn.Module):
    """Identity, but its values or its gradients are not finite where `scale` is zero."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x / self.scale if self.kind == "value" else x + self.scale.sqrt()


def level(**fields: Any) -> Level:
    return convert({"split": "s", "optimizer": {"name": "sgd", "lr": 0.1}, **fields}, Level, "level")


def square(net: nn.Module, x: Tensor) -> Tensor:
    return net(x).square().mean()  # type: ignore[no-any-return]


def batch(split: str, index: int) -> Tensor:
    drawn: Tensor = torch.randn(3, 4, generator=torch.Generator().manual_seed(index))
    return drawn


def everything(levels: Multilevel) -> dict[str, Any]:
    return copy.deepcopy({"model": levels.model.state_dict(), "levels": levels.state_dict()["optimizers"]})


def run(levels: Multilevel, steps: int) -> None:
    for k in range(steps):
        levels.step(k)


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 4))


OPTIMIZERS = {
    "sgd": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
    "adam": {"name": "adam", "lr": 0.1},
    "adamw": {"name": "adamw", "lr": 0.1},
}


@pytest.mark.parametrize("rate", [1e38, 1e30], ids=["to infinity", "too large to compute with"])
@pytest.mark.parametrize("before", [0, 2], ids=["the first step", "a later step"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_finite_gradient_does_not_take_the_weights_out_of_range(
    optimizer: dict[str, Any], before: int, rate: float
) -> None:
    levels = Multilevel(
        network(), {"all": level(parameters=["*"], loss="l", optimizer=optimizer)}, {"l": square}, batch, 9
    )
    for k in range(before):
        levels.step(k)
    kept = everything(levels)
    levels.steppers["all"].level = level(parameters=["*"], loss="l", optimizer={**optimizer, "lr": rate})
    moved = levels.step(before)["all"]
    assert torch.tensor([moved.loss, moved.gradient]).isfinite().all()
    assert levels.skipped == {"all": 1}
    found = everything(levels)
    for each in (kept, found):
        for group in each["levels"]["all"]["param_groups"]:
            del group["lr"]
    assert same(kept, found)
    assert all(p.grad is None for p in levels.model.parameters())
    levels.steppers["all"].level = level(parameters=["*"], loss="l", optimizer=optimizer)
    levels.step(before + 1)
    assert not same(kept["model"], everything(levels)["model"])


def test_statistics_that_overflow_are_not_kept() -> None:
    """The output of a batch norm is finite where the variance of its input is not."""
    large = Multilevel(
        network(),
        {"all": level(parameters=["2.*"], loss="l")},
        {"l": lambda net, x: net(x * 1e25).square().mean()},
        batch,
        9,
    )
    before = everything(large)
    assert torch.tensor(large.step(0)["all"].loss).isfinite()
    assert same(before, everything(large))
    assert large.skipped == {"all": 1}


def test_a_buffer_that_is_never_finite_does_not_matter() -> None:
    net = network()
    net.register_buffer("mask", torch.full((2, 2), -torch.inf).triu(1))
    levels = Multilevel(net, {"all": level(parameters=["*"], loss="l")}, {"l": square}, batch, 9)
    levels.step(0)
    assert levels.skipped == {"all": 0}


# --- what is said ---


def faulty(kind: str) -> Any:
    def space(choose: Chooser, /) -> nn.Module:
        names = {"skip": nn.Identity, "linear": lambda: nn.Linear(4, 4), "bad": lambda: Faulty(kind)}
        good = {"skip": nn.Identity, "tanh": nn.Tanh}
        return nn.Sequential(choose("first", good), choose("second", names), choose("third", good))

    return space


def images(kind: str) -> Any:
    def space(choose: Chooser, /) -> nn.Module:
        convolution = {"conv": lambda: nn.Conv2d(2, 2, 3, padding=1), "skip": nn.Identity, "bad": lambda: Faulty(kind)}
        return Cell(choose, "cell", convolution, inputs=1, nodes=2, output="last")

    return space


def search(
    kind: str = "value", space: Any = faulty, shape: tuple[int, ...] = (3, 4), steps: int = 20, **options: Any
) -> Multilevel:
    supernet = Supernet(SearchSpace("faulty", space(kind)), **options)
    levels = {
        "lower": level(parameters=["network.*"], loss="l", patience=4),
        "upper": level(parameters=["arch.*"], loss="l", patience=2),
    }
    return Multilevel(
        supernet, levels, {"l": square}, lambda split, index: batch(split, index)[:1].new_ones(shape), steps
    )


@pytest.mark.parametrize("kind", ["value", "gradient"])
@pytest.mark.parametrize("options", [{}, {"memory": "checkpoint"}, {"evaluation": "plain"}], ids=str)
@pytest.mark.parametrize(
    ("space", "shape", "label"),
    [(faulty, (3, 4), "second"), (images, (1, 2, 4, 4), "cell/1<-0")],
    ids=["chain", "cell"],
)
def test_every_level_is_named_from_the_lowest_up_and_the_candidate(
    space: Any, shape: tuple[int, ...], label: str, options: dict[str, Any], kind: str
) -> None:
    engine = search(kind, space, shape, **options)
    message = (
        rf"^level 'lower' since step 0: 2 steps in a row not finite \(.*, first in candidate 'bad' of '{label}'\);"
        r" level 'upper' since step 0: 2 steps .* a learning rate below 0.1, or 'clip'$"
    )
    if kind == "gradient":  # which the arch parameters do not see: the lower level alone, when its own patience ends
        message = rf"^level 'lower' since step 0: 4 .* \(loss [\d.]+, .*, first in .* 'bad' of '{label}'\)\. Try"
    with pytest.raises(DivergedError, match=message):
        run(engine, 20)
    before, random = engine.model.state_dict(), torch.get_rng_state()
    assert all(value.isfinite().all() for value in before.values())
    assert torch.equal(random, torch.get_rng_state())


def test_a_derived_network_names_its_candidate() -> None:
    genotype = Genotype(space="faulty", choices={"first": "skip", "second": "bad", "third": "tanh"})
    net = SearchSpace("faulty", faulty("value")).derived(genotype)
    engine = Multilevel(net, {"all": level(parameters=["*"], loss="l", patience=1)}, {"l": square}, batch, 5)
    with pytest.raises(DivergedError, match="first in candidate 'bad' of 'second'"):
        engine.step(0)


def test_a_batch_that_is_not_finite_is_named() -> None:
    levels = {"all": level(parameters=["*"], loss="l", patience=2, accumulate=2)}
    engine = Multilevel(
        network(), levels, {"l": square}, lambda s, i: batch(s, i) * (torch.nan if i % 2 and i > 4 else 1), 9
    )
    with pytest.raises(
        DivergedError, match=r"^level 'all' since step 2: 2 steps .*loss nan.* first in its batch\)\. .*data"
    ):
        run(engine, 9)


def test_a_level_that_responds_is_named_before_the_one_above() -> None:
    """It takes no step itself; its loss makes the gradient above useless."""

    def broken(net: Any, x: Tensor) -> Tensor:
        return square(net, x) * torch.inf

    supernet = Supernet(SearchSpace("tame", faulty("gradient")))
    with torch.no_grad():
        supernet.network[1].bad.scale.fill_(1.0)  # type: ignore[union-attr, index, operator]
    levels = {
        "lower": level(parameters=["network.*"], loss="broken", warmup=0.9),
        "upper": level(parameters=["arch.*"], loss="l", patience=2, hypergradient={"lower": {"name": "unrolled"}}),
    }
    engine = Multilevel(supernet, levels, {"l": square, "broken": broken}, batch, 20)
    message = r"^level 'lower', which responds to 'upper': loss inf; level 'upper' since step 0: 2 steps in a row"
    with pytest.raises(DivergedError, match=message):
        run(engine, 3)


def test_an_overflow_is_told_from_a_loss_that_is_not_finite() -> None:
    wild = level(parameters=["*"], loss="l", patience=3, optimizer={"name": "sgd", "lr": 1e38})
    engine = Multilevel(network(), {"all": wild}, {"l": square}, batch, 9)
    with pytest.raises(DivergedError, match=r"loss [\d.]+, gradient norm [\d.]+; its step leaves the range of numbers"):
        run(engine, 3)


# --- a learning rate that is lowered once ---

WILD = {"name": "sgd", "lr": 1e38, "momentum": 0.9}


def wild(backoff: float | None, **fields: Any) -> Multilevel:
    """Levels whose steps leave the range of numbers at the learning rate that they begin with."""
    only = level(parameters=["*"], loss="l", patience=3, optimizer=WILD, backoff=backoff, **fields)
    return Multilevel(network(), {"all": only}, {"l": square}, batch, 30)


def test_a_learning_rate_is_lowered_once_and_steps_are_taken_again() -> None:
    engine, other = wild(1e-39), wild(1e-39)
    before = everything(engine)["model"]
    assert [engine.step(k)["all"].backoff for k in range(3)] == [None, None, 1e-39]
    assert same(before, everything(engine)["model"]), "skipped steps change nothing"
    other.load_state_dict(engine.state_dict())
    for k in range(3, 9):
        for each in (engine, other):
            assert each.step(k)["all"].backoff is None
    assert engine.optimizers["all"].param_groups[0]["lr"] == pytest.approx(0.1)
    assert engine.skipped == {"all": 3}
    assert same(everything(engine), everything(other)), "the lowered rate is part of the state"
    tame = Multilevel(
        network(),
        {"all": level(parameters=["*"], loss="l", optimizer=WILD | {"lr": 1e38 * 1e-39})},
        {"l": square},
        batch,
        30,
    )
    for k in range(3, 9):
        tame.step(k)
    assert same(everything(engine)["model"], everything(tame)["model"]), "as if its rate had always been lower"


@pytest.mark.parametrize(("backoff", "count"), [(None, 3), (0.5, 6)])
def test_a_lower_rate_that_does_not_help_stops_the_run(backoff: float | None, count: int) -> None:
    engine = wild(backoff)
    with pytest.raises(DivergedError, match=rf"since step 0: {count} steps in a row not finite"):
        run(engine, 30)
    assert engine.skipped == {"all": count}


def test_a_second_divergence_stops_the_run() -> None:
    """Its patience is whole again once a step was taken."""
    engine = wild(1e-39)
    run(engine, 5)
    engine._evaluation.batch = lambda split, index: batch(split, index) * torch.nan
    engine.step(5)
    engine.step(6)
    with pytest.raises(DivergedError, match="since step 5: 3 steps in a row not finite"):
        engine.step(7)


def test_virtual_steps_take_the_lowered_rate() -> None:
    found = []
    for rate, backed_off in ((0.4, True), (0.2, False), (0.4, False)):
        supernet = Supernet(SearchSpace("tame", faulty("value")))
        with torch.no_grad():
            supernet.network[1].bad.scale.fill_(1.0)  # type: ignore[union-attr, index, operator]
        rated = {"optimizer": {"name": "sgd", "lr": rate}, "backoff": 0.5}
        upper = level(parameters=["arch.*"], loss="l", hypergradient={"lower": {"name": "unrolled"}})
        levels = {"lower": level(parameters=["network.*"], loss="l", **rated), "upper": upper}
        engine = Multilevel(supernet, levels, {"l": square}, batch, 9)
        engine.steppers["lower"].backed_off = backed_off
        found.append(engine.gradient("upper", 0)[1])
    assert same(found[0], found[1])
    assert not same(found[0], found[2])


# --- the end of a run ---


def test_a_run_that_ends_without_a_step_has_diverged() -> None:
    levels = {"all": level(parameters=["*"], loss="l", inner_steps=2)}
    engine = Multilevel(network(), levels, {"l": lambda net, x: square(net, x) * torch.nan}, batch, 3)
    engine.step(0)
    engine.step(1)
    with pytest.raises(DivergedError, match=r"^level 'all' since step 0: 6 steps in a row not finite \(loss nan"):
        engine.step(2)
    again = Multilevel(network(), levels, {"l": square}, batch, 3)
    again.require_moved()  # nothing has been tried
    again.load_state_dict(engine.state_dict())
    with pytest.raises(DivergedError, match=r"^level 'all' since step 0: 6 steps"):
        again.require_moved()


def test_one_step_taken_is_enough_at_the_end() -> None:
    levels = {"all": level(parameters=["*"], loss="l")}
    engine = Multilevel(network(), levels, {"l": square}, lambda s, i: batch(s, i) * (torch.nan if i else 1), 3)
    for k in range(3):
        engine.step(k)
    engine.require_moved()
    assert engine.skipped == {"all": 2}


def test_a_level_that_was_never_due_has_not_diverged() -> None:
    levels = {"all": level(parameters=["0.*"], loss="l"), "late": level(parameters=["2.*"], loss="l", period=9)}
    engine = Multilevel(network(), levels, {"l": square}, batch, 3)
    for k in range(3):
        engine.step(k)
