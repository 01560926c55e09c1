"""Levels in a loop of one's own: equal to the configured search, and as safe."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from nas.cost.space_cost import costs
from nas.errors import ConfigError, DivergedError, NASError
from nas.files import convert
from nas.genotype.file import Genotype
from nas.multilevel.level import Level
from nas.multilevel.levels import Levels, level
from nas.multilevel.multilevel import Multilevel
from nas.run import checkpoint
from nas.run.config import load_config
from nas.run.folder import Run
from nas.run.searching import build_supernet, search
from nas.space.chooser import Chooser
from nas.space.definition import SearchSpace
from nas.space.primitives import DropPath
from nas.supernet import Supernet
from quadratic import CLOSED_FORMS, Scalars
from states import same

Batch = tuple[Tensor, Tensor]


# --- equal to the configured search ---


def small(choose: Chooser, /) -> nn.Module:
    """Two decisions, batch norm and dropout: (batch, 4) to (batch, 2)."""
    first = choose("first", {"linear": lambda: nn.Linear(4, 4), "skip": nn.Identity, "tanh": nn.Tanh})
    second = choose("second", {"linear": lambda: nn.Linear(4, 4), "skip": nn.Identity})
    return nn.Sequential(first, nn.BatchNorm1d(4), nn.Dropout(0.2), second, nn.Linear(4, 2))


def cross_entropy(net: nn.Module, batch: Batch) -> Tensor:
    return nn.functional.cross_entropy(net(batch[0]), batch[1])


def supernet(**how: Any) -> Supernet:
    return Supernet(SearchSpace("small", small), **how)


def optimizers(net: Supernet) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    weights = torch.optim.SGD(net.weights(), 0.1, momentum=0.9, weight_decay=0.01)
    return weights, torch.optim.Adam(net.logits(), 0.03)


def loader(seed: int) -> DataLoader[tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(48, 4, generator=generator), torch.randint(0, 2, (48,), generator=generator)
    return DataLoader(TensorDataset(x, y), batch_size=8, generator=generator)  # which leaves torch's random state alone


CONFIGURED: dict[str, dict[str, Any]] = {
    "lower": {
        "parameters": ["network.*"],
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01},
    },
    "upper": {"parameters": ["arch.*"], "optimizer": {"name": "adam", "lr": 0.03}},
}


def configured(net: Supernet, splits: dict[str, list[Any]], steps: int, **fields: dict[str, Any]) -> Multilevel:
    levels = {
        name: convert({"loss": "loss", "split": name, **of, **fields.get(name, {})}, Level, name)
        for name, of in CONFIGURED.items()
    }
    resources = {"cost": lambda: costs(net.space.describe())}
    return Multilevel(net, levels, {"loss": cross_entropy}, lambda split, i: splits[split][i % 6], steps, resources)


@pytest.mark.parametrize(
    ("method", "batches"),
    [
        ("first_order", "repeat"),
        ("unrolled", "repeat"),
        ({"name": "neumann", "terms": 2}, "repeat"),
        ({"name": "gauss_newton", "reuse": True}, "repeat"),
        ({"name": "unrolled", "batches": "next"}, "next"),
        ({"name": "unrolled", "steps": 2}, "next"),
    ],
    ids=str,
)
def test_a_loop_over_data_loaders_equals_the_configured_levels(method: Any, batches: str) -> None:
    train, val = (list(loader(seed)) for seed in (1, 2))
    ahead = method.get("steps", 1) if batches == "next" and isinstance(method, dict) else 0
    entry = {**({"name": method} if isinstance(method, str) else method), "batches": batches}
    terms = [{"name": "entropy", "weight": 0.1}, {"name": "expected_cost", "weight": 0.2}]
    results = []
    for own in (False, True):
        torch.manual_seed(0)
        net, moved = supernet(), []
        if own:
            weights, arch = optimizers(net)
            levels = Levels(
                net,
                steps=4,
                lower=level(weights, loss=cross_entropy, clip=1.0),
                upper=level(arch, loss=cross_entropy, hypergradient={"lower": method}, regularizers=terms),
            )
            for k, (train_batch, val_batch) in enumerate(zip(loader(1), loader(2), strict=True)):
                if k == 4:
                    break
                following = train[k : k + 1 + ahead] if ahead else train_batch
                moved.append(levels.step(lower=following, upper=val_batch))
            state = levels.state_dict()
            assert state.pop("step") == levels.done == 4
        else:
            splits = {"lower": train, "upper": val}
            upper = {"hypergradient": {"lower": entry}, "regularizers": terms}
            engine = configured(net, splits, 4, lower={"clip": 1.0}, upper=upper)
            moved = [engine.step(k) for k in range(4)]
            state = engine.state_dict()
        results.append([net.state_dict(), state["optimizers"], moved, torch.get_rng_state()])
    (_, optimizer_states, _, _), (_, own_states, _, _) = results
    for name in ("lower", "upper"):  # the groups also name options that a configuration does not
        assert same(optimizer_states[name]["state"], own_states[name]["state"])
    for i in (0, 2, 3):
        assert same(results[0][i], results[1][i])
    assert list(results[1][2][0]) == ["lower", "upper"]
    assert results[1][2][0]["upper"].terms.keys() == {"entropy", "expected_cost"}


def test_several_inner_steps_and_parts_read_a_list() -> None:
    train, val = (list(loader(seed)) for seed in (1, 2))
    fields = {"inner_steps": 2, "accumulate": 2}
    method = {"name": "unrolled", "steps": 2}
    states = []
    for own in (False, True):
        torch.manual_seed(0)
        net = supernet()
        if own:
            weights, arch = optimizers(net)
            lower = level(weights, loss=cross_entropy, inner_steps=2, accumulate=2)
            levels = Levels(net, lower=lower, upper=level(arch, loss=cross_entropy, hypergradient={"lower": method}))
            assert levels.reads == {"lower": 8, "upper": 1}
            levels.step(lower=[train[i % 6] for i in range(8)], upper=val[0])
            loss, gradients = levels.gradient("upper", lower=[train[(4 + i) % 6] for i in range(8)], upper=val[1])
        else:
            upper = {"hypergradient": {"lower": method}}
            splits = {"lower": train, "upper": val}
            engine = configured(net, splits, 9, lower=fields, upper=upper)
            engine.step(0)
            loss, gradients = engine.gradient("upper", 1)
        states.append([net.state_dict(), loss, gradients])
    assert same(*states)


def test_a_level_that_does_not_move_responds() -> None:
    train, val = (list(loader(seed)) for seed in (1, 2))
    states = []
    for own in (False, True):
        torch.manual_seed(0)
        net = supernet()
        if own:
            weights, arch = optimizers(net)
            upper = level(arch, loss=cross_entropy, hypergradient={"lower": "unrolled"})
            levels = Levels(net, steps=4, lower=level(weights, loss=cross_entropy, period=2), upper=upper)
            moved = [levels.step(lower=train[k - 1 if k == 2 else max(k, 1)], upper=val[k]) for k in range(4)]
        else:
            splits = {"lower": train, "upper": val}
            repeat = {"hypergradient": {"lower": {"name": "unrolled", "batches": "repeat"}}}
            engine = configured(net, splits, 4, lower={"period": 2}, upper=repeat)
            moved = [engine.step(k) for k in range(4)]
        assert [list(each) for each in moved] == [["upper"], ["lower", "upper"]] * 2
        states.append(net.state_dict())
    assert same(*states)


def test_a_loop_equals_nas_search(tmp_path: Path) -> None:
    method = {"name": "unrolled"}
    changes = {
        "search.steps": 5,
        "search.epochs": 1,
        "task.batch": 8,
        "options.channels": 4,
        "options.nodes": 2,
        "search.levels.upper.hypergradient": {"lower": method},
    }
    config = load_config("digits", [f"{key}={value}" for key, value in changes.items()])
    with Run.create(tmp_path / "run", config.dump(), config.seed) as run:
        search(config, run)
    expected = checkpoint.load(tmp_path / "run" / "checkpoints" / "last.pt")["state"]
    task, net = config.build_task(), build_supernet(config)
    loss = task.losses["cross_entropy"]
    weights = torch.optim.SGD(net.weights(), 0.1, momentum=0.9, weight_decay=3e-4)
    arch = torch.optim.Adam(net.logits(), 3e-2, betas=(0.5, 0.999))
    ahead = {"lower": {**method, "batches": "next"}}
    levels = Levels(
        net,
        steps=5,
        lower=level(weights, loss=loss, schedule="cosine", clip=5.0),
        upper=level(arch, loss=loss, warmup=0.4, mode="eval", scale_free=True, hypergradient=ahead),
    )
    torch.manual_seed(config.seed)
    for k in range(5):
        levels.step(lower=[task.batch("train", k), task.batch("train", k + 1)], upper=task.batch("val", k))
    assert same(net.state_dict(), expected["network"])
    assert net.derive().choices == Genotype.load(tmp_path / "run" / "genotype.yaml").choices


# --- closed forms ---


f, F = Scalars.lower, Scalars.upper


@pytest.mark.parametrize(("method", "expected"), CLOSED_FORMS, ids=str)
def test_gradients_equal_closed_forms_and_change_nothing(method: Any, expected: float) -> None:
    net = Scalars()
    levels = Levels(
        net,
        lower=level(torch.optim.SGD([net.w], 0.1), loss=f),
        upper=level(torch.optim.SGD([net.a], 1.0), loss=F, hypergradient={"lower": method}),
    )
    count = levels.reads["lower"]
    loss, gradients = levels.gradient("upper", lower=[None] * count if count > 1 else None, upper=None)
    assert gradients["a"].item() == pytest.approx(expected, abs=1e-12)
    assert (net.w.item(), net.a.item(), levels.done) == (2.0, 0.5, 0)
    assert loss.item() > 0


# --- the user's optimizers ---


def line(net: Any, batch: Any) -> Tensor:
    """A loss of constant gradient (3, 4)."""
    loss: Tensor = 3 * net.w + 4 * net.a
    return loss


def test_learning_rates_of_groups_and_schedulers_are_kept() -> None:
    net = Scalars()
    optimizer = torch.optim.SGD([{"params": [net.w], "lr": 0.1}, {"params": [net.a], "lr": 0.01}], lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    levels = Levels(net, only=level(optimizer, loss=line))
    for _ in range(2):
        levels.step(only=None)
        scheduler.step()
    assert net.w.item() == pytest.approx(2 - 3 * 0.1 * 1.5)
    assert net.a.item() == pytest.approx(0.5 - 4 * 0.01 * 1.5)


def test_virtual_steps_use_the_scheduler_s_rate() -> None:
    net = Scalars()
    lower = torch.optim.SGD([net.w], 0.2)
    levels = Levels(
        net,
        lower=level(lower, loss=f),
        upper=level(torch.optim.SGD([net.a], 1.0), loss=F, hypergradient={"lower": "unrolled"}),
    )
    lower.param_groups[0]["lr"] = 0.1
    assert levels.gradient("upper", lower=None, upper=None)[1]["a"].item() == pytest.approx(0.1 * (1.85 + 1))


def test_a_schedule_starts_at_the_optimizer_s_rate() -> None:
    net = Scalars()
    levels = Levels(net, steps=4, only=level(torch.optim.SGD([net.w], 0.1), loss=line, schedule="cosine"))
    for _ in range(4):
        levels.step(only=None)
    rates = [0.1 * (1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)]
    assert net.w.item() == pytest.approx(2 - 3 * sum(rates))


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    name: getattr(torch.optim, name)
    for name in ("SGD", "Adam", "Adagrad", "Adadelta", "Adamax", "ASGD", "NAdam", "RAdam", "RMSprop", "Rprop")
}


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_optimizer_steps_as_in_plain_torch_and_a_step_that_is_not_finite_is_undone(name: str) -> None:
    def loss(net: nn.Module, batch: Batch) -> Tensor:
        return cross_entropy(net, batch)

    net, plain = network(), network()
    optimizer, theirs = OPTIMIZERS[name](net.parameters(), lr=0.01), OPTIMIZERS[name](plain.parameters(), lr=0.01)
    levels = Levels(net, only=level(optimizer, loss=loss))
    batches = list(loader(1))

    def compare() -> None:
        assert same(net.state_dict(), plain.state_dict())
        assert same(optimizer.state_dict(), theirs.state_dict())

    x, y = batches[0]
    for k, batch in enumerate(batches):
        levels.step(only=batch)
        theirs.zero_grad()
        loss(plain, batch).backward()  # type: ignore[no-untyped-call]
        theirs.step()
        compare()
        if k % 2 == 0:
            levels.step(only=[x * torch.nan, y])
            compare()
    assert levels.skipped == {"only": 3}
    assert all(p.grad is None for p in net.parameters())


def test_a_step_out_of_range_is_undone_with_the_options_of_its_groups() -> None:
    class Growing(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            for group in self.param_groups:
                group["count"] = group.get("count", 0) + 1
            return super().step(closure)

    net = Scalars()
    optimizer = Growing([net.w], 1.7e308)
    levels = Levels(net, only=level(optimizer, loss=f))
    levels.step(only=None)
    assert levels.skipped == {"only": 1}
    assert (net.w.item(), optimizer.param_groups[0].get("count", 0)) == (2.0, 0)


def test_frozen_parameters_stay() -> None:
    net = Scalars()
    net.a.requires_grad_(False)
    levels = Levels(net, only=level(torch.optim.SGD(net.parameters(), 0.1), loss=line))
    levels.step(only=None)
    assert (net.w.item(), net.a.item()) == (pytest.approx(1.7), 0.5)


# --- state ---


def test_a_loop_that_is_resumed_equals_the_uninterrupted_one() -> None:
    train, val = list(loader(1)), list(loader(2))

    def build() -> tuple[Supernet, Levels]:
        net = supernet(relaxation="gumbel")
        weights, arch = optimizers(net)
        upper = level(arch, loss=cross_entropy, hypergradient={"lower": "unrolled"})
        return net, Levels(net, steps=6, lower=level(weights, loss=cross_entropy), upper=upper)

    torch.manual_seed(0)
    net, levels = build()
    for k in range(3):
        levels.step(lower=train[k], upper=val[k])
    saved = copy.deepcopy([net.state_dict(), levels.state_dict(), torch.get_rng_state()])
    for k in range(3, 6):
        levels.step(lower=train[k], upper=val[k])
    again, resumed = build()
    again.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    torch.set_rng_state(saved[2])
    for k in range(3, 6):
        resumed.step(lower=train[k], upper=val[k])
    assert same(net.state_dict(), again.state_dict())
    assert same(levels.state_dict(), resumed.state_dict())


def test_modules_are_told_the_progress() -> None:
    net: Any = Scalars()
    net.drop = DropPath(0.4)
    levels = Levels(net, steps=4, only=level(torch.optim.SGD([net.w], 0.1), loss=line))
    rates = []
    for _ in range(4):
        levels.step(only=None)
        rates.append(net.drop.p)
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3])
    with pytest.raises(ConfigError, match=r"'steps' must be larger .* got 4"):
        levels.step(only=None)


def test_a_level_that_stays_broken_stops_the_loop_after_the_others_had_their_turn() -> None:
    net = Scalars()
    levels = Levels(
        net,
        broken=level(torch.optim.SGD([net.w], 0.1), loss=lambda net, batch: f(net, batch) * torch.nan, patience=2),
        top=level(torch.optim.SGD([net.a], 0.1), loss=lambda net, batch: f(net, batch)),
    )
    levels.step(broken=None, top=None)
    with pytest.raises(DivergedError, match=r"^level 'broken' since step 0: 2 .* below 0.1"):
        levels.step(broken=None, top=None)
    assert net.w.item() == 2.0
    assert net.a.item() == pytest.approx(2 - 1.5 * 0.9**2)
    assert levels.done == 2


# --- what cannot work ---


def two(net: Any, lower: dict[str, Any], upper: dict[str, Any], **how: Any) -> Levels:
    weights, arch = torch.optim.SGD([net.w], 0.1), torch.optim.SGD([net.a], 0.1)
    fields = {"lower": {"optimizer": weights, "loss": f, **lower}, "upper": {"optimizer": arch, "loss": F, **upper}}
    return Levels(net, **how, **{name: level(each.pop("optimizer"), **each) for name, each in fields.items()})


@pytest.mark.parametrize(
    ("lower", "upper", "message"),
    [
        ({"optimizer": "sgd"}, {}, "'optimizer' must be a torch optimizer, got 'sgd'"),
        ({"loss": "f"}, {}, "'loss' must be a function .* got 'f'"),
        ({"period": 0}, {}, "nas.level: .*period.* 1"),
        ({}, {"hypergradient": {"lower": "unroled"}}, "'unroled'.*did you mean 'unrolled'"),
        ({}, {"hypergradient": {"lower": {"name": "unrolled", "step": 1}}}, r"lower.step .*did you mean 'steps'"),
        ({}, {"hypergradient": {"lower": {}}}, "name"),
        ({}, {"hypergradient": {"lwer": "unrolled"}}, "level 'upper': .*'lwer' .*did you mean 'lower'"),
        ({"hypergradient": {"upper": "unrolled"}}, {}, "level 'lower': .* 'upper'"),
        ({}, {"regularizers": [{"name": "entropy", "weight": 1}]}, "level 'upper': .* got a Scalars"),
        ({"schedule": "cosin"}, {}, "'cosin'.*did you mean 'cosine'"),
    ],
    ids=str,
)
def test_levels_that_cannot_work(lower: dict[str, Any], upper: dict[str, Any], message: str) -> None:
    with pytest.raises(NASError, match=message):
        two(Scalars(), lower, upper)


def test_optimizers_that_cannot_work() -> None:
    net = Scalars()
    with pytest.raises(ConfigError, match="without a closure, got LBFGS"):
        level(torch.optim.LBFGS([net.w]), loss=f)
    groups = [{"params": [net.w], "lr": 0.1}, {"params": [net.a], "lr": 0.01}]
    with pytest.raises(ConfigError, match=r"one learning rate, got 0.1, 0.01\."):
        level(torch.optim.SGD(groups), loss=f, schedule="cosine")
    other = level(torch.optim.SGD([nn.Parameter(torch.ones(2, 3))], 0.1), loss=f)
    with pytest.raises(ConfigError, match=r"level 'only': .* \(2, 3\)"):
        Levels(net, only=other)
    every = [level(torch.optim.SGD(net.parameters(), 0.1), loss=f) for _ in range(2)]
    with pytest.raises(ConfigError, match="levels 'lower' and 'upper' both own the parameter 'w'"):
        Levels(net, lower=every[0], upper=every[1])
    with pytest.raises(ConfigError, match="no levels"):
        Levels(net)
    with pytest.raises(ConfigError, match=r"'only' must be a level that nas.level returned, got SGD"):
        Levels(net, only=torch.optim.SGD(net.parameters(), 0.1))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="'steps' must be at least 1, got 0"):
        Levels(net, steps=0, only=every[0])
    net.requires_grad_(False)
    with pytest.raises(ConfigError, match=r"level 'only': .* requires a gradient, got none"):
        Levels(net, only=every[0])


@pytest.mark.parametrize("method", ["unrolled", {"name": "truncated", "steps": 2}, "finite_difference"], ids=str)
def test_an_optimizer_that_cannot_be_unrolled_is_refused_at_once(method: Any) -> None:
    net = Scalars()
    with pytest.raises(ConfigError, match=r"RMSprop.*virtual_step"):
        two(net, {"optimizer": torch.optim.RMSprop([net.w])}, {"hypergradient": {"lower": method}})
    levels = two(net, {"optimizer": torch.optim.RMSprop([net.w])}, {"hypergradient": {"lower": "implicit"}})
    assert list(levels.step(lower=None, upper=None)) == ["lower", "upper"]


def changing() -> Iterator[tuple[str, Callable[[], Levels]]]:
    yield "schedule of level 'lower'", lambda: two(Scalars(), {"schedule": "cosine"}, {})
    yield "schedule of level 'lower'", lambda: two(Scalars(), {"schedule": {"name": "constant", "warmup": 0.1}}, {})
    yield (
        "loss of level 'lower'",
        lambda: two(Scalars(), {"loss": lambda net, batch, progress=1.0: net.w * progress}, {}),
    )
    yield "warm-up of level 'upper'", lambda: two(Scalars(), {}, {"warmup": 0.5})
    ramped = [{"name": "entropy", "weight": 1.0, "ramp": True}]
    net = supernet()
    yield (
        "regularizer 'entropy' of level 'only'",
        lambda: Levels(net, only=level(optimizers(net)[1], loss=cross_entropy, regularizers=ramped)),
    )
    sampled = supernet(relaxation="gumbel")
    yield "relaxation Gumbel", lambda: Levels(sampled, only=level(optimizers(sampled)[1], loss=cross_entropy))
    wrapped = supernet(wrappers=["perturbation"])
    yield "wrapper Perturbation", lambda: Levels(wrapped, only=level(optimizers(wrapped)[1], loss=cross_entropy))
    dropped = nn.Sequential(network(), DropPath(0.4))
    optimizer = torch.optim.SGD(dropped.parameters(), 0.1)
    yield r"module '1' \(DropPath\)", lambda: Levels(dropped, only=level(optimizer, loss=cross_entropy))


@pytest.mark.parametrize(("part", "build"), list(changing()), ids=lambda value: value if isinstance(value, str) else "")
def test_without_steps_a_part_that_changes_over_the_run_is_an_error(part: str, build: Callable[[], Levels]) -> None:
    with pytest.raises(ConfigError, match=f"'steps' .* {part}"):
        build()


def test_batches_that_cannot_work() -> None:
    method = {"lower": {"name": "unrolled", "steps": 2}}
    levels = two(Scalars(), {}, {"hypergradient": method, "period": 2})
    assert levels.reads == {"lower": 3, "upper": 1}
    x, y = torch.ones(2, 3), torch.ones(2)
    for batches, message in (
        ({"lower": [0, 0, 0]}, "'upper' must have a batch in step 0"),
        ({"lower": [0, 0], "upper": 0}, r"'lower' .* 3 batches \(1 .* 2 .*\), got 2\..*'repeat'"),
        ({"lower": x, "upper": 0}, "'lower' .* 3 batches .* got a Tensor"),
        ({"lower": [x, y, y], "upper": 0}, "'lower' .* 3 batches .* got 3 of different forms"),
        ({"lower": [0, 0, 0], "uper": 0}, "'uper' .*did you mean 'upper'"),
    ):
        with pytest.raises(NASError, match=message):
            levels.step(**batches)
    assert levels.done == 0
    levels.step(lower=[0, 0, 0], upper=0)
    assert list(levels.step(lower=[0, 0, 0], upper=0)) == ["lower", "upper"]
    assert list(levels.step(lower=[0, 0, 0])) == ["lower"]  # the upper level does not move in this step
    with pytest.raises(NASError, match=r"'uper'.*did you mean 'upper'"):
        levels.gradient("uper", lower=[0, 0, 0], upper=0)


@pytest.mark.parametrize(
    ("loss", "found"), [(lambda net, batch: net.w * torch.ones(2), r"shape \(2,\)"), (lambda net, batch: 1.0, "1.0")]
)
def test_a_loss_must_be_a_scalar(loss: Any, found: str) -> None:
    with pytest.raises(ConfigError, match=f"level 'lower': .* scalar tensor, got .*{found}"):
        two(Scalars(), {"loss": loss}, {}).step(lower=None, upper=None)


def test_a_level_without_effect_is_an_error_in_the_first_step() -> None:
    levels = two(Scalars(), {}, {"loss": f, "hypergradient": {}})
    assert list(levels.step(lower=None, upper=None)) == ["lower", "upper"]
    with pytest.raises(ConfigError, match=r"level 'lower': .* \(w\), got 'upper' of level 'upper'"):
        two(Scalars(), {}, {"loss": lambda net, batch: net.a.square()}).step(lower=None, upper=None)
