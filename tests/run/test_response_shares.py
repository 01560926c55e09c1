"""Shares of responses against closed forms, the reference's number of steps, and their records."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.errors import UnknownNameError
from nas.files import convert
from nas.hypergradient.methods import create_response
from nas.multilevel.level import Level
from nas.multilevel.multilevel import Multilevel
from nas.run.response_shares import ResponseShares, Share, shares


class Chain(nn.Module):
    """Two lower levels of one number each, which follow `a`, and the level of `a`."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
        self.v = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
        self.a = nn.Parameter(torch.tensor([0.5, 0.0], dtype=torch.float64))


LOSSES = {
    "w": lambda net, batch: (net.w - net.a[0]).square() / 2,
    "v": lambda net, batch: (net.v - 3 * net.a[1]).square() / 2,
    "upper": lambda net, batch: 3 * net.a[0] + 4 * net.a[1] + net.w + net.v,
}


def levels(rate: float = 0.5, **hypergradient: Any) -> Multilevel:
    def level(name: str, **fields: Any) -> Level:
        entry = {"loss": name, "split": name, "optimizer": {"name": "sgd", "lr": rate}, **fields}
        return convert(entry, Level, name)

    found = {
        "w": level("w", parameters=["w"]),
        "v": level("v", parameters=["v"]),
        "upper": level("upper", parameters=["a"], hypergradient=hypergradient),
    }
    return Multilevel(Chain(), found, LOSSES, lambda split, index: torch.zeros(1), 12)


def test_shares_equal_their_closed_forms() -> None:
    # F_a is (3, 4), of norm 5. After K steps w responds by 1 - .5^K, and v by three times that.
    response = 1 - 0.5**8
    w, v = shares(levels(w={"name": "unrolled"}, v={"name": "gauss_newton"}), 1, 8)
    assert (w.level, w.method, w.steps, v.level, v.method, v.steps) == ("w", "unrolled", 8, "v", "gauss_newton", 8)
    assert w.share == pytest.approx(0.5 / 5)
    assert (w.reference, v.reference) == pytest.approx((response / 5, 3 * response / 5))
    assert w.change == pytest.approx((0.5**4 - 0.5**8) / response)
    assert w.ratio == pytest.approx(0.5 / response)
    assert v.share == pytest.approx(3 / 5)
    assert (w.cosine, v.cosine) == pytest.approx((1, 1))
    assert (w.agrees, v.agrees) == (True, True)


def test_the_reference_is_doubled_until_it_changes_by_less_than_a_tenth() -> None:
    for most, steps in ((1, 1), (2, 2), (3, 2), (8, 8), (64, 8)):
        assert {each.steps for each in shares(levels(), 1, most)} == {steps}
    (slow,) = shares(levels(0.01), 1, 4, below="v")
    assert slow.change > 0.4, "not settled"
    assert slow.share == 0
    assert math.isnan(slow.cosine)
    assert not slow.agrees
    with pytest.raises(UnknownNameError, match="'u'"):
        shares(levels(), 1, 4, below="u")


@pytest.mark.parametrize(
    ("cosine", "ratio", "agrees"), [(0.9, 0.5, True), (0.89, 1, False), (1, 2.1, False), (1, 0.4, False)]
)
def test_what_agrees(cosine: float, ratio: float, agrees: bool) -> None:
    assert Share("w", "unrolled", 1.0, 1.0, 8, 0.05, cosine, ratio).agrees is agrees


def test_other_methods_take_the_place_of_configured_ones_and_regularizers_do_not_count() -> None:
    entries: dict[str, Any] = {"one": "gauss_newton", "two": {"name": "unrolled", "steps": 2}}
    methods = {label: create_response(entry, "test") for label, entry in entries.items()}
    found = shares(levels(), 1, 0, methods, below="w")
    assert [each.method for each in found] == ["one", "two"]
    assert [each.share for each in found] == pytest.approx([1 / 5, 0.75 / 5])
    assert math.isnan(found[0].reference)


def test_an_observer_records_them_at_some_moments() -> None:
    built, records = levels(w="unrolled"), {}
    watch: Any = ResponseShares(built, moments=2, most=4)
    for step in range(1, 13):
        built.step(step - 1)
        if step % 3 == 0:
            records[step] = watch.on_epoch(step, built.model, None)
            state, watch = watch.state_dict(), ResponseShares(built, moments=2, most=4)
            watch.load_state_dict(state)
    assert [step for step, found in records.items() if found] == [6, 12]
    assert records[12]["w/share"] == pytest.approx(0.1)
    assert records[12]["w/steps"] == 4
    assert {key.partition("/")[0] for key in records[12]} == {"w", "v"}
    plain: Any = ResponseShares(built, moments=1)
    assert plain.on_epoch(12, built.model, None) == {"w/share": pytest.approx(0.1)}


def test_nothing_changes() -> None:
    built = levels(w="unrolled")
    before: list[Tensor] = [p.detach().clone() for p in built.model.parameters()]
    state = torch.get_rng_state()
    shares(built, 1, 4)
    assert all(torch.equal(a, b) for a, b in zip(before, built.model.parameters(), strict=True))
    assert torch.equal(state, torch.get_rng_state())
