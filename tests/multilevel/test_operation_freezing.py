"""Freezing of operations: what the rule decides, what it is given, and that a frozen operation stays as it is."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import toy
from nas.errors import ConfigError, NASError
from nas.multilevel.multilevel import Multilevel
from nas.multilevel.operation_freezing import Gradients, OperationFreezing, operations_of
from nas.registry import kind, register
from nas.report.page import write_report
from nas.run.folder import read_records
from nas.run.loop import FROZEN
from nas.run.searching import build_levels, build_supernet
from runs import assert_equal_runs, run_search
from states import same
from watch import Stop, Stopped

# --- the rule ---


def at_angle(cosine: float) -> tuple[Tensor, Tensor]:
    return torch.tensor([2.0, 0.0]), torch.tensor([3 * cosine, 3 * (1 - cosine**2) ** 0.5])


def judged(rule: OperationFreezing, *cosines: float) -> list[list[str]]:
    """What a rule freezes at each of these agreements of one operation."""
    pairs = [at_angle(cosine) for cosine in cosines]
    return [rule({"a": [validation]}, {"a": [training]}) for validation, training in pairs]


@pytest.mark.parametrize(
    ("cosines", "frozen"),
    [((0.5, 0.32, 0.37), True), ((0.5, 0.32, 0.39), False), ((1.0, 1.0, -0.81), True), ((-1.0, 1.0, 1.0), True)],
)
def test_an_operation_is_frozen_if_the_mean_of_a_window_is_too_low(cosines: Sequence[float], frozen: bool) -> None:
    assert (sum(cosines) / 3 < 0.4) == frozen
    assert judged(OperationFreezing(window=3), *cosines) == [[], [], ["a"] * frozen]


def test_windows_do_not_overlap() -> None:
    assert judged(OperationFreezing(window=2), 0.9, 0.9, -0.9, 0.9) == [[], [], [], ["a"]]
    assert judged(OperationFreezing(window=2), 0.9, 0.1, 0.1, 0.9) == [[]] * 4


def test_agreement_is_the_cosine_over_the_first_dimension() -> None:
    """Averaged over columns, then over tensors: not the cosine of all numbers together."""
    a = torch.tensor([[100.0, 0.0], [0.0, 1.0]])
    b = torch.tensor([[1.0, 1.0], [0.0, 0.0]])  # columns agree by 1 and 0
    c, d = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 0.0])
    for tensors, mean in (([(a, b)], 0.5), ([(a, b), (c, d)], -0.25), ([(torch.tensor(2.0), torch.tensor(3.0))], 1.0)):
        validation, training = zip(*tensors, strict=True)
        for threshold, frozen in ((mean + 1e-4, True), (mean - 1e-4, False)):
            rule = OperationFreezing(window=1, threshold=threshold)
            assert rule({"a": validation}, {"a": training}) == ["a"] * frozen


@pytest.mark.parametrize("side", [0, 1])
def test_a_candidate_that_was_not_computed_is_not_judged(side: int) -> None:
    rule = OperationFreezing(window=2)
    pair = [torch.ones(2), torch.ones(2)]
    pair[side] = torch.zeros(2)
    for _ in range(4):
        assert rule({"a": pair[:1], "b": [torch.ones(1)]}, {"a": pair[1:], "b": [torch.ones(1)]}) == []
    assert judged(rule, 0.0, 0.0) == [[], ["a"]]


# --- in steps ---

FREEZING = "search.levels.lower.freezing"
MIDDLE = "search.levels.upper.hypergradient={}"


@register("freezing", "test_remembering")
class Remembering:
    """Freezes the convolution at its second call, and keeps what it was given."""

    def __init__(self) -> None:
        self.calls: list[tuple[Gradients, Gradients]] = []

    def __call__(self, validation: Gradients, training: Gradients, /) -> list[str]:
        self.calls.append((validation, training))
        return ["network.first.conv"] if len(self.calls) == 2 else []

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any], /) -> None: ...


def levels(*overrides: str) -> Multilevel:
    config = toy.config("search.steps=20", MIDDLE, *overrides)
    supernet = build_supernet(config)
    for module in supernet.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return build_levels(config, supernet, config.build_task())


def test_the_operations_of_the_toy() -> None:
    multilevel = levels()
    found = operations_of(multilevel.model, multilevel.owned["lower"])  # type: ignore[arg-type]
    assert list(found) == [f"network.first.{name}" for name in ("conv", "depthwise", "scale")] + [
        "network.second.linear"
    ]
    assert found["network.second.linear"] == ("network.second.linear.weight", "network.second.linear.bias")


def test_the_rule_gets_the_gradients_of_both_levels() -> None:
    """Validation: of the upper level's loss. Training: of the lower level's step, unclipped."""
    multilevel = levels(f"{FREEZING}=test_remembering", "search.levels.lower.clip=1e-3")
    rule: Any = multilevel.freezers["lower"].rule
    task = toy.config().build_task()
    for k in range(4):
        before = copy.deepcopy(multilevel.model)
        multilevel.step(k)
    validation, training = rule.calls[0]
    named = dict(before.named_parameters())
    before.on_progress(3, 20)  # type: ignore[operator]
    names = ["network.second.linear.weight", "network.second.linear.bias"]
    taken = torch.autograd.grad(task.losses["lower"](before, task.batch("train", 3)), [named[name] for name in names])
    assert all(map(torch.equal, training["network.second.linear"], taken)) or all(
        torch.allclose(a, b, rtol=1e-5) for a, b in zip(training["network.second.linear"], taken, strict=True)
    )
    assert len(rule.calls) == 1, "the upper level moves in step 3 first"
    after = copy.deepcopy(multilevel.model)
    with torch.no_grad():
        for label, logits in after.arch.items():  # type: ignore[union-attr, operator]
            logits.copy_(before.arch[label])  # type: ignore[index]
    named = dict(after.named_parameters())
    found = torch.autograd.grad(task.losses["fused"](after, task.batch("val", 3)), [named[name] for name in names])
    for ours, theirs in zip(validation["network.second.linear"], found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-8)


def test_a_frozen_operation_never_moves_again() -> None:
    multilevel = levels(f"{FREEZING}=test_remembering")
    frozen = [name for name, _ in multilevel.model.named_parameters() if name.startswith("network.first.conv.")]
    values: list[dict[str, Tensor]] = []
    told = []
    for k in range(12):
        moved = multilevel.step(k)
        told += [move.frozen for move in moved.values() if move.frozen]
        values.append({name: p.detach().clone() for name, p in multilevel.model.named_parameters()})
        if k >= 6:
            gradients = [p for name, p in multilevel.steppers["lower"].moving.items() if name in frozen]
            assert not gradients
    assert told == [{"lower": ["network.first.conv"]}]
    for name in frozen:
        if name.endswith(".weight"):  # a bias before a norm has no gradient but rounding
            assert not torch.equal(values[4][name], values[5][name])
        assert torch.equal(values[5][name], values[11][name]), "frozen after step 5"
    other = "network.second.linear.weight"
    assert not torch.equal(values[5][other], values[11][other])


@pytest.mark.parametrize("at", [3, 6, 9])
def test_saved_and_loaded_it_steps_the_same(at: int) -> None:
    entry = f"{FREEZING}={{name: oles, window: 2, threshold: 0.9}}"
    ours, theirs = levels(entry), levels(entry)
    for k in range(at):
        ours.step(k)
    random = torch.get_rng_state()
    theirs.model.load_state_dict(copy.deepcopy(ours.model.state_dict()))
    theirs.load_state_dict(copy.deepcopy(ours.state_dict()))
    told = []
    for multilevel in (ours, theirs):
        torch.set_rng_state(random)
        told.append([[move.frozen for move in multilevel.step(k).values()] for k in range(at, 14)])
    assert told[0] == told[1]
    assert ours.freezers["lower"].frozen
    assert same(ours.state_dict(), theirs.state_dict())
    assert same(ours.model.state_dict(), theirs.model.state_dict())


# --- in a run ---


def test_a_search_that_freezes_is_resumed_bit_for_bit_and_says_what_it_froze(tmp_path: Path) -> None:
    entry = f"{FREEZING}={{name: oles, window: 2, threshold: 0.99}}"
    config = toy.config("search.steps=10", "search.epochs=5", MIDDLE, entry)
    run_search(tmp_path / "whole", config)
    with pytest.raises(Stopped):
        run_search(tmp_path / "run", config, Stop(7))
    run_search(tmp_path / "run", config, resume=True)
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")
    records = [record for record in read_records(tmp_path / "run") if record["kind"] == FROZEN]
    assert records
    assert all(record["level"] == "lower" and record["of"] == 4 for record in records)
    page = write_report(tmp_path / "run").path.read_text()
    for operation in (operation for record in records for operation in record["operations"]):
        assert operation in page


# --- what cannot work ---


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([f"{FREEZING}=olse"], r"freezing 'olse'.*did you mean 'oles'"),
        ([f"{FREEZING}={{name: oles, window: 0}}"], r"freezing\.window must be at least 1, got 0"),
        ([f"{FREEZING}={{name: oles, threshold: 2}}"], r"freezing\.threshold must be at most 1, got 2"),
        (
            ["search.levels.middle.freezing=oles"],
            r"level 'middle': freezing: the level must own candidate operations of a supernet, got none",
        ),
        (
            ["search.levels.upper.freezing=oles", "search.levels.upper.parameters=[arch.*, network.second.*]",
             "search.levels.lower.parameters=[network.first.*]"],
            r"level 'upper': freezing: a level above must own the arch parameters, got none",
        ),
        (
            ["search.levels.upper.hypergradient={lower: {name: unrolled}}", f"{FREEZING}=oles"],
            r"level 'lower': freezing needs hypergradient\.lower of level 'upper' to be first_order, got unrolled",
        ),
        (
            [f"{FREEZING}=oles", "search.relaxation=uniform_path"],
            r"needs logits that get a gradient",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_frozen_is_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises((ConfigError, NASError), match=message) as caught:
        levels(*overrides)
    assert "\n" not in str(caught.value)


def test_the_defaults_are_those_of_the_authors() -> None:
    """PasaLab/oles: a mean over 20 arch steps, below 0.4."""
    assert kind("freezing").complete("oles", "freezing") == {"name": "oles", "window": 20, "threshold": 0.4}
