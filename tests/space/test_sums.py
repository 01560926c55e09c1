"""Sums of outputs, against sums written out, and what they refuse."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from nas.errors import SpaceError
from nas.genotype.file import Genotype
from nas.space.cell import Cell, Chain
from nas.space.chooser import Chooser, Factory
from nas.space.definition import SearchSpace
from nas.space.sums import total
from nas.supernet import Evaluation, Memory, Supernet


class Pair(NamedTuple):
    image: Tensor
    flow: Tensor


def weights(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.double)


X = torch.arange(24, dtype=torch.double).reshape(2, 4, 3)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_tensors(values: list[float]) -> None:
    outputs = [X * i - 3 for i in range(len(values))]
    expected = torch.einsum("i,i...->...", weights(*values), torch.stack(outputs))
    assert torch.allclose(total("o", enumerate(outputs), weights(*values)), expected, rtol=1e-12, atol=1e-12)
    assert torch.allclose(total("o", enumerate(outputs)), torch.stack(outputs).sum(0), rtol=1e-12)


def test_tuples() -> None:
    a, b = Pair(X, -X), Pair(X + 1, X * 2)
    found = total("o", {"a": a, "b": b}.items(), weights(0.25, 0.5))
    assert isinstance(found, Pair)
    assert torch.equal(found.image, 0.25 * X + 0.5 * (X + 1))
    assert torch.equal(found.flow, -0.25 * X + 0.5 * X * 2)
    plain = total("o", {"a": tuple(a), "b": tuple(b)}.items(), weights(0.25, 0.5))
    assert type(plain) is tuple
    assert all(torch.equal(x, y) for x, y in zip(plain, found, strict=True))


@pytest.mark.parametrize("factors", [None, weights(0.25, 0.5)])
def test_what_is_nested(factors: Tensor | None) -> None:
    def nested(x: Tensor) -> Any:
        return {"out": x, "state": (x + 1, [x * 2, None]), "pair": OrderedDict(last=Pair(x - 1, x.sum()))}

    a, b = (1.0, 1.0) if factors is None else (0.25, 0.5)
    found = total("o", {"p": nested(X), "q": nested(X / 3)}.items(), factors)
    assert torch.equal(found["out"], a * X + b * (X / 3))
    assert torch.equal(found["state"][0], a * (X + 1) + b * (X / 3 + 1))
    assert isinstance(found["state"][1], list)
    assert torch.equal(found["state"][1][0], a * (X * 2) + b * (X / 3 * 2))
    assert found["state"][1][1] is None
    assert isinstance(found["pair"], OrderedDict)
    assert isinstance(found["pair"]["last"], Pair)
    assert torch.equal(found["pair"]["last"].flow, a * X.sum() + b * (X / 3).sum())


def test_keys_in_another_order() -> None:
    found = total("o", {"p": {"a": X, "b": -X}, "q": {"b": X, "a": 2 * X}}.items())
    assert list(found) == ["a", "b"]
    assert torch.equal(found["a"], 3 * X)


def test_floating_types_are_brought_to_the_widest() -> None:
    found = total("o", {"p": X.bfloat16(), "q": X.float(), "r": X.half()}.items(), weights(1.0, 1.0, 1.0).float())
    assert found.dtype == torch.float32
    assert torch.equal(found, 3 * X.float())


@pytest.mark.parametrize("count", [1, 3])
def test_as_many_weights_as_terms(count: int) -> None:
    with pytest.raises(ValueError, match=r"shorter|longer"):
        total("o", enumerate([X] * count), weights(0.5, 0.5))


ALIKE = r"'o' adds 'p' and 'q': "


@pytest.mark.parametrize(
    ("p", "q", "message"),
    [
        (X, X[:, :1], ALIKE + r"shapes must be equal, got \(2, 4, 3\) and \(2, 1, 3\)"),
        (X[:1], X, ALIKE + r"shapes must be equal, got \(1, 4, 3\) and \(2, 4, 3\)"),
        (X, X.flatten(1), ALIKE + r"shapes must be equal, got \(2, 4, 3\) and \(2, 12\)"),
        (X, X.sum(), ALIKE + r"shapes must be equal, got \(2, 4, 3\) and \(\)"),
        (X, X.to("meta"), ALIKE + "devices must be equal, got cpu and meta"),
        ({"a": [X]}, {"a": [X.mT]}, ALIKE + r"shapes must be equal, got \(2, 4, 3\) and \(2, 3, 4\)"),
        (X, (X,), ALIKE + "types must be equal, got Tensor and tuple"),
        ((X, X), Pair(X, X), ALIKE + "types must be equal, got tuple and Pair"),
        ((X, None), (X, X), ALIKE + "types must be equal, got NoneType and Tensor"),
        ((X, X), (X,), ALIKE + "lengths must be equal, got 2 and 1"),
        ({"a": X}, {"b": X}, ALIKE + r"keys must be equal, got \['a'\] and \['b'\]"),
        (X, None, "'q' of 'o' must return floating-point tensors, .* got NoneType"),
        (None, X, "'p' of 'o' must return floating-point tensors, .* got NoneType"),
        (X, "x", "'q' of 'o' must return floating-point tensors, .* got str"),
        ((X, 0.5), (X, 0.5), "'p' of 'o' must return floating-point tensors, .* got float"),
        (X, X.long(), "'q' of 'o' must return floating-point tensors, .* got torch.int64"),
        ((X, X > 0), (X, X > 0), "'p' of 'o' must return floating-point tensors, .* got torch.bool"),
        ({1, 2}, X, "'p' of 'o' must return floating-point tensors, .* got set"),
    ],
)
@pytest.mark.parametrize("factors", [None, weights(0.5, 0.5)], ids=["plain", "weighted"])
def test_what_cannot_be_added_up(factors: Tensor | None, p: Any, q: Any, message: str) -> None:
    with pytest.raises(SpaceError, match=message) as error:
        total("o", {"p": p, "q": q}.items(), factors)
    assert "\n" not in str(error.value)


# Where supernets and derived networks add up


class Own(nn.Module):
    """A layer that the planner does not know."""

    def __init__(self, out: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(4, out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def conv(out: int = 4, kernel: int = 3, stride: int = 1) -> nn.Module:
    return nn.Conv2d(4, out, kernel, stride, kernel // 2)


OTHERS: dict[str, tuple[Factory, str]] = {
    "one channel": (lambda: conv(1), r"\(2, 1, 6, 6\)"),
    "more channels": (lambda: conv(8), r"\(2, 8, 6, 6\)"),
    "one row": (lambda: nn.AdaptiveAvgPool2d((1, 6)), r"\(2, 4, 1, 6\)"),
    "stride": (lambda: nn.AvgPool2d(2), r"\(2, 4, 3, 3\)"),
    "sequence": (lambda: nn.Sequential(nn.ReLU(), conv(4, 1, 2), nn.BatchNorm2d(4)), r"\(2, 4, 3, 3\)"),
    "own": (lambda: Own(1), r"\(2, 1, 6, 6\)"),
    "flat": (lambda: nn.Flatten(), r"\(2, 144\)"),
}
FIRST: dict[str, Factory] = {"conv": conv, "skip": nn.Identity, "own": lambda: Own(4), "pool": lambda: nn.AvgPool2d(1)}


def cell_of(choose: Chooser, candidates: dict[str, Factory]) -> nn.Module:
    return Cell(choose, "c", candidates, nodes=2, inputs=1, output="last")


PLACES: dict[str, tuple[Callable[[Chooser, dict[str, Factory]], nn.Module], str]] = {
    "mixed": (lambda choose, candidates: choose("o", candidates), "'o' adds 'first' and 'other'"),
    "cell": (cell_of, "'c/1<-0' adds 'first' and 'other'"),
}


def supernet_of(build: Callable[[Chooser], nn.Module], **arguments: Any) -> Supernet:
    def function(choose: Chooser, /) -> nn.Module:
        return build(choose)

    return Supernet(SearchSpace("t", function), **arguments)


@pytest.mark.parametrize("memory", ["keep", "checkpoint"])
@pytest.mark.parametrize("evaluation", ["plain", "planned"])
@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("place", PLACES)
def test_candidates_of_other_shapes(place: str, other: str, evaluation: Evaluation, memory: Memory) -> None:
    build, where = PLACES[place]
    make, shape = OTHERS[other]
    for first in FIRST.values():
        candidates = {"first": first, "other": make}
        supernet = supernet_of(lambda choose, c=candidates: build(choose, c), evaluation=evaluation, memory=memory)
        with pytest.raises(SpaceError, match=rf"^{where}: shapes must be equal, got \(2, 4, 6, 6\) and {shape}$"):
            supernet(torch.randn(2, 4, 6, 6))


@pytest.mark.parametrize("relaxation", ["softmax", "gumbel"])
@pytest.mark.parametrize("evaluation", ["plain", "planned"])
@pytest.mark.parametrize("other", OTHERS)
def test_edges_of_other_shapes(other: str, evaluation: Evaluation, relaxation: str) -> None:
    make, shape = OTHERS[other]

    def build(choose: Chooser) -> nn.Module:
        edges = {0: {"only": conv}, 1: {"only": make}}
        return Cell(choose, "c", lambda source, node: edges[source], nodes=1, inputs=2, output="last")

    supernet = supernet_of(build, evaluation=evaluation, relaxation=relaxation)
    derived = supernet.derived(supernet.derive())
    for network in (supernet, derived):
        with pytest.raises(SpaceError, match=rf"^'c/2' adds '0' and '1': shapes .* \(2, 4, 6, 6\) and {shape}$"):
            network(torch.randn(2, 4, 6, 6), torch.randn(2, 4, 6, 6))


@pytest.mark.parametrize("other", OTHERS)
def test_depths_and_residuals_of_other_shapes(other: str) -> None:
    make, shape = OTHERS[other]
    depth = supernet_of(lambda choose: choose.depth("d", (0, 1), lambda i: make()))
    with pytest.raises(SpaceError, match=rf"^'d' adds '0' and '1': shapes must .* \(2, 4, 6, 6\) and {shape}$"):
        depth(torch.randn(2, 4, 6, 6))
    chain = supernet_of(lambda choose: Chain(choose, "k", {"only": make}, length=1, residual=True))
    for network in (chain, chain.derived(chain.derive())):
        message = rf"^'k' adds 'input' and 'output': shapes must be equal, got \(2, 4, 6, 6\) and {shape}$"
        with pytest.raises(SpaceError, match=message):
            network(torch.randn(2, 4, 6, 6))


class Several(nn.Module):
    """Returns a dictionary with nested outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Any:
        y = self.inner(x)
        return {"a": y, "rest": (y + 1, [y * 2, None])}


def test_a_supernet_mixes_what_is_nested_as_the_derived_network_returns_it() -> None:
    supernet = supernet_of(lambda choose: choose("o", {"p": Several, "q": Several})).eval()
    x = torch.randn(2, 3)
    genotype = Genotype(space="t", choices={"o": "q"})
    with supernet.fixed(genotype):
        fixed = supernet(x)
    derived = supernet.derived(genotype)(x)
    assert list(fixed) == ["a", "rest"]
    assert torch.equal(fixed["a"], derived["a"])
    assert torch.equal(fixed["rest"][1][0], derived["rest"][1][0])
    assert fixed["rest"][1][1] is None
    assert torch.allclose(supernet(x)["a"], 0.5 * (supernet.network.p.inner(x) + supernet.network.q.inner(x)))
