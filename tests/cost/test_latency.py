"""Tables of latencies: what they price, and that they are measured where the time goes."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor, nn

from nas.cost.latency import measure_latency, tabulated
from nas.errors import ConfigError, UnknownNameError
from nas.space.chooser import Chooser
from nas.space.definition import search_space
from nas.supernet import Supernet

CLOCK = [0.0]
"""Seconds, in place of those of a machine that has other things to do."""


class Slow(nn.Module):
    def __init__(self, milliseconds: float, inside: nn.Module | None = None) -> None:
        super().__init__()
        self.seconds = milliseconds / 1000
        self.inside = nn.Identity() if inside is None else inside

    def forward(self, x: Tensor) -> Tensor:
        CLOCK[0] += self.seconds
        result: Tensor = self.inside(x)
        return result


@search_space("with-latencies")
def space(choose: Chooser, /) -> nn.Module:
    """A decision inside a candidate of another, and one label at two places."""
    inner = {"quick": nn.Identity, "slow": lambda: Slow(6)}
    outer = {"plain": lambda: Slow(2), "nested": lambda: Slow(3, choose("inner", inner))}
    twice = {"none": nn.Identity, "wait": lambda: Slow(4)}
    return nn.Sequential(choose("outer", outer), choose("twice", twice), choose("twice", twice))


TABLE = {
    "outer": {"plain": 2.0, "nested": 3.0},
    "inner": {"quick": 0.0, "slow": 6.0},
    "twice": {"none": 0.0, "wait": 8.0},
}
DECISIONS = space.describe().decisions


def test_genotypes_are_priced_by_what_they_chose() -> None:
    cost = tabulated(DECISIONS, TABLE)
    assert cost.of({"outer": "plain", "twice": "none"}) == 2
    assert cost.of({"outer": "nested", "inner": "slow", "twice": "wait"}) == 3 + 6 + 8
    assert cost.candidates["twice"] == (0, 8)


def test_the_expected_latency_weighs_what_lies_inside_a_candidate_by_its_chance() -> None:
    weights = {
        label: torch.tensor([0.25, 0.75], dtype=torch.float64, requires_grad=True)
        for label in ("outer", "inner", "twice")
    }
    expected = tabulated(DECISIONS, TABLE).expected(weights)
    assert expected.item() == pytest.approx(0.25 * 2 + 0.75 * (3 + 0.75 * 6) + 0.75 * 8)
    (gradient,) = torch.autograd.grad(expected, weights["outer"])
    assert gradient.tolist() == pytest.approx([2, 3 + 0.75 * 6])


def test_a_supernet_is_measured_candidate_by_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "perf_counter", lambda: CLOCK[0])
    supernet = Supernet(space)
    assert measure_latency(supernet, (torch.zeros(1),), repeats=3) == TABLE
    assert supernet.training


@pytest.mark.parametrize("repeats", [1, 2])
def test_the_first_pass_warms_up(repeats: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every module takes a hundred times as long when it is called first, and so it is with one repeat, or two."""

    def first(module: nn.Module, *_: object) -> None:
        CLOCK[0] += 99 * module.seconds  # type: ignore[operator]
        handles.pop(module).remove()

    monkeypatch.setattr(time, "perf_counter", lambda: CLOCK[0])
    supernet = Supernet(space)
    slow = [module for module in supernet.modules() if isinstance(module, Slow)]
    handles = {module: module.register_forward_hook(first) for module in slow}
    assert measure_latency(supernet, (torch.zeros(1),), repeats=repeats) == TABLE
    assert not handles


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"iner": {"quick": 1.0}}, UnknownNameError, "latencies 'iner' .*'inner'"),
        ({"inner": {"quik": 1.0}}, UnknownNameError, "'inner' .* 'quik' .*'quick'"),
        ({"inner": {"quick": 1.0}}, ConfigError, "'inner', got none for slow[.]"),
        ({"inner": {}}, ConfigError, "'inner', got none for quick, slow[.]"),
    ],
)
def test_tables_that_do_not_fit(changes: dict[str, dict[str, float]], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        tabulated(DECISIONS, {**TABLE, **changes})


def test_depths_and_widths_may_be_left_out() -> None:
    @search_space("deep-latencies")
    def deep(choose: Chooser, /) -> nn.Module:
        return choose.depth("blocks", [1, 2], lambda i: nn.Identity())

    decisions = deep.describe().decisions
    assert tabulated(decisions, {}).of({"blocks": 2}) == 0
    assert tabulated(decisions, {"blocks": {"1": 3.0, "2": 5.0}}).of({"blocks": 2}) == 5
