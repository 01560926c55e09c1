"""Writes into what several modules share: they are seen in every mode, and refused wherever an input is used twice."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.errors import SpaceError
from nas.genotype.file import Genotype
from nas.space.cell import Cell, Chain
from nas.space.chooser import Chooser, Factory
from nas.space.definition import SearchSpace
from nas.space.inplace import Unchanged, countable
from nas.supernet import Evaluation, Memory, Supernet

WRITES: dict[str, Callable[[Tensor], object]] = {
    "method": lambda x: x.mul_(2),
    "view": lambda x: x[0].view(-1).add_(1),
    "setitem": lambda x: x.__setitem__(0, 1.0),
    "out": lambda x: torch.mul(x, 2, out=x),
    "function": lambda x: nn.functional.relu(x, inplace=True),
    "detached": lambda x: x.detach().zero_(),
    "foreach": lambda x: torch._foreach_add_([x], 1),
}
READS: dict[str, Callable[[Tensor], object]] = {
    "function": lambda x: nn.functional.relu(x),
    "view": lambda x: x.view(-1)[:2] * 2,
    "copy": lambda x: x.clone().mul_(2),
}


def sees(use: Callable[[Tensor], object], x: Tensor, nest: Callable[[Tensor], Any] = lambda x: x) -> bool:
    """Whether a write is seen by who watches `nest(x)`."""
    watched = countable(nest(x))
    unchanged = Unchanged(watched)
    (inner,) = [leaf for leaf in torch.utils._pytree.tree_leaves(watched) if isinstance(leaf, Tensor)]
    use(inner)
    return not unchanged.holds()


def in_vmap(use: Callable[[Tensor], object]) -> bool:
    found = []

    def run(x: Tensor) -> Tensor:
        found.append(sees(use, x))
        return x.sum()

    torch.func.vmap(run)(torch.randn(2, 3, 4))
    return found[0]


def in_grad(use: Callable[[Tensor], object]) -> bool:
    found = []

    def run(x: Tensor) -> Tensor:
        x = x * 1.0  # no leaf
        found.append(sees(use, x))
        return x.sum()

    torch.func.vmap(torch.func.grad(run))(torch.randn(2, 3, 4))
    return found[0]


def in_inference(use: Callable[[Tensor], object]) -> bool:
    with torch.inference_mode():
        return sees(use, torch.randn(3, 4))


def in_inference_vmap(use: Callable[[Tensor], object]) -> bool:
    with torch.inference_mode():
        return in_vmap(use)


def without_gradient(use: Callable[[Tensor], object]) -> bool:
    with torch.no_grad():
        return sees(use, torch.randn(3, 4))


MODES: dict[str, Callable[[Callable[[Tensor], object]], bool]] = {
    "grad": lambda use: sees(use, torch.randn(3, 4, requires_grad=True) * 2),
    "no_grad": without_gradient,
    "inference": in_inference,
    "vmap": in_vmap,
    "vmap of grad": in_grad,
    "vmap in inference": in_inference_vmap,
    "meta": lambda use: sees(use, torch.empty(3, 4, device="meta")),
    "nested": lambda use: sees(use, torch.randn(3, 4), lambda x: ({"a": [None, (1, x)]}, "b")),
}


UNKNOWN = ("grad", "vmap", "vmap of grad", "vmap in inference")
"""Where torch refuses arguments `out`, and most functions of many tensors."""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("write", WRITES)
def test_every_write_is_seen(mode: str, write: str) -> None:
    if write in ("out", "foreach") and mode in UNKNOWN:
        return
    assert MODES[mode](WRITES[write])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("read", READS)
def test_no_read_is_taken_for_one(mode: str, read: str) -> None:
    assert not MODES[mode](READS[read])


def test_aliases_in_inference_mode_share_the_memory_and_what_is_seen() -> None:
    with torch.inference_mode():
        x = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
        y, z = countable((x, x[1]))
        assert torch.equal(x, y)
        assert y.stride() == x.stride()
        assert y.data_ptr() == x.data_ptr()
        unchanged = Unchanged(y)
        z.zero_()
        assert not unchanged.holds()
        assert x[1].count_nonzero() == 0


# Candidates


class Relu(nn.Module):
    """Writes into its input although no attribute says so."""

    channelwise = True

    def forward(self, x: Tensor) -> Tensor:
        return x.relu_()


class Deep(nn.Module):
    """Writes into the last of its inputs."""

    def forward(self, x: Tensor, y: Any = None, *, scale: Any = None) -> Tensor:
        inner = scale if y is None else y[1]["a"]
        return x * inner.relu_()


def conv() -> nn.Module:
    return nn.Conv2d(2, 2, 3, padding=1)


class Wrapped(nn.Module):
    """Computes first, so that the input of the part is no leaf, and gives it more inputs."""

    def __init__(self, part: nn.Module, call: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.part, self.call = conv(), part, call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.part, self.stem(x))


def mixed(choose: Chooser, candidates: dict[str, Factory]) -> nn.Module:
    return Wrapped(choose("o", candidates), lambda part, x: part(x))


def nested(choose: Chooser, candidates: dict[str, Factory]) -> nn.Module:
    bad = {**candidates, "relu": Deep}
    good = {**bad, "conv": lambda: Product()}
    return Wrapped(choose("o", good), lambda part, x: part(x, (1, {"a": x * 2})))


def keywords(choose: Chooser, candidates: dict[str, Factory]) -> nn.Module:
    return Wrapped(choose("o", {"conv": Product, "relu": Deep}), lambda part, x: part(x, scale=x * 2))


class Product(nn.Module):
    def forward(self, x: Tensor, y: Any = None, *, scale: Any = None) -> Tensor:
        return x * (scale if y is None else y[1]["a"])


def edges(choose: Chooser, candidates: dict[str, Factory]) -> nn.Module:
    node = choose.inputs("n", {0: candidates["conv"], 1: candidates["relu"]})
    return Wrapped(node, lambda part, x: part([x, x * 2]))


def cell(choose: Chooser, candidates: dict[str, Factory]) -> nn.Module:
    cell = Cell(choose, "c", candidates, nodes=2, inputs=1, output="last")
    return Wrapped(cell, lambda part, x: part(x))


def cell_keywords(choose: Chooser, candidates: dict[str, Factory]) -> nn.Module:
    cell = Cell(choose, "c", {"conv": Product, "relu": Deep}, nodes=2, inputs=1, output="last")
    return Wrapped(cell, lambda part, x: part(x, scale=x * 2))


def depth(choose: Chooser, candidates: dict[str, Factory]) -> nn.Module:
    block = [candidates["conv"], candidates["relu"]].__getitem__
    return Wrapped(choose.depth("d", (1, 2), lambda i: block(i)()), lambda part, x: part(x))


def chain(choose: Chooser, candidates: dict[str, Factory]) -> nn.Module:
    return Wrapped(Chain(choose, "k", candidates, length=2), lambda part, x: part(x))


PLACES: dict[str, tuple[Callable[..., nn.Module], str]] = {
    "mixed": (mixed, "'relu' of 'o'"),
    "nested": (nested, "'relu' of 'o'"),
    "keywords": (keywords, "'relu' of 'o'"),
    "edges": (edges, "'1' of 'n'"),
    "cell": (cell, "'relu' of 'c/1<-0'"),
    "cell_keywords": (cell_keywords, "'relu' of 'c/1<-0'"),
    "depth": (depth, "'1' of 'd'"),
    "chain": (chain, "'relu' of 'k/1'"),
}
RELUS: dict[str, Factory] = {
    "layer": lambda: nn.ReLU(inplace=True),
    "sequence": lambda: nn.Sequential(nn.Identity(), nn.ReLU(inplace=True), conv()),
    "own": Relu,
    "later": lambda: nn.Sequential(nn.Dropout(0.0), nn.Hardtanh(inplace=True), nn.Tanh()),
}


def space_of(place: str, relu: str) -> SearchSpace:
    def build(choose: Chooser, /) -> nn.Module:
        return PLACES[place][0](choose, {"conv": conv, "relu": RELUS[relu], "tanh": nn.Tanh})

    return SearchSpace("t", build)


MEANS = {
    "grad": nullcontext,
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
}


@pytest.mark.parametrize("relaxation", ["softmax", "gumbel"])
@pytest.mark.parametrize("means", MEANS)
@pytest.mark.parametrize("memory", ["keep", "checkpoint"])
@pytest.mark.parametrize("evaluation", ["plain", "planned"])
@pytest.mark.parametrize("place", PLACES)
def test_supernets_refuse_candidates_that_write_into_their_input(
    place: str, evaluation: Evaluation, memory: Memory, means: str, relaxation: str
) -> None:
    if place == "depth" and relaxation == "gumbel":
        return  # of a single depth that is computed nothing between its blocks is used twice
    for relu in RELUS:
        supernet = Supernet(space_of(place, relu), evaluation=evaluation, memory=memory, relaxation=relaxation).eval()
        for label, logits in supernet.arch.items():
            if "relu" in supernet.decisions[label].candidates:
                logits.data[1] = 9.0  # a sample that is not taken writes nothing
        context: AbstractContextManager[object] = MEANS[means]()
        with context, pytest.raises(SpaceError, match=f"{PLACES[place][1]} changes its input in place; use inplace="):
            supernet(torch.randn(2, 2, 4, 4))


INNER: dict[str, dict[str, Factory]] = {
    "activation": {
        "short": nn.LeakyReLU,
        "long": lambda: nn.Sequential(nn.LeakyReLU(), nn.Hardtanh(0, 0.1, inplace=True), conv()),
    },
    "norm": {
        "short": lambda: nn.BatchNorm2d(2, affine=False),
        "long": lambda: nn.Sequential(nn.BatchNorm2d(2, affine=False), nn.ReLU(inplace=True)),
    },
    "first": {
        "short": lambda: nn.Sequential(nn.Identity(), nn.LeakyReLU()),
        "long": lambda: nn.Sequential(nn.Sequential(nn.LeakyReLU(), nn.Identity()), nn.Hardtanh(0, 0.1, inplace=True)),
    },
    "convolution": {"short": conv, "long": lambda: nn.Sequential(nn.Tanh(), conv(), nn.ReLU(inplace=True))},
}


@pytest.mark.parametrize("case", INNER)
def test_writes_into_what_a_candidate_has_made_itself_are_fine(case: str) -> None:
    def build(choose: Chooser, /) -> nn.Module:
        return Wrapped(Cell(choose, "c", INNER[case], nodes=2, inputs=1, output="last"), lambda part, x: part(x))

    space, x = SearchSpace("t", build), torch.randn(2, 2, 4, 4).double()
    plain, planned = (Supernet(space, evaluation=evaluation).double() for evaluation in ("plain", "planned"))
    (a, to_a), (b, to_b) = (
        (y, torch.autograd.grad(y.square().sum(), list(s.parameters()))) for s in (plain, planned) for y in [s(x)]
    )
    for one, other in zip((a, *to_a), (b, *to_b), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("means", MEANS)
def test_a_layer_that_states_otherwise_than_it_does_is_named(means: str) -> None:
    candidates: dict[str, Factory] = {"short": nn.ReLU, "long": lambda: nn.Sequential(nn.ReLU(), Relu(), conv())}

    def build(choose: Chooser, /) -> nn.Module:
        return Cell(choose, "c", candidates, nodes=1, inputs=1, output="last")

    supernet = Supernet(SearchSpace("t", build))
    with MEANS[means](), pytest.raises(SpaceError, match=r"Relu: .* must not change"):
        supernet(torch.randn(2, 2, 4, 4))


# Derived networks


def derived(build: Callable[[Chooser], nn.Module], **choices: Any) -> nn.Module:
    def function(choose: Chooser, /) -> nn.Module:
        return build(choose)

    return SearchSpace("t", function).derived(Genotype(space="t", choices=choices)).eval()


def both(choose: Chooser, label: str) -> nn.Module:
    return choose(label, {"conv": conv, "relu": lambda: nn.ReLU(inplace=True), "skip": nn.Identity})


def candidates() -> dict[str, Factory]:
    return {"conv": conv, "relu": lambda: nn.ReLU(inplace=True), "skip": nn.Identity}


def small_cell(choose: Chooser, **arguments: Any) -> nn.Module:
    return Cell(choose, "c", candidates(), **{"inputs": 1, "keep": 1, "output": "last", **arguments})


class Steps(nn.Module):
    """A block that gives the next one the same second input."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + nn.functional.relu(y, inplace=self.inplace)


TWICE: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module, Tensor], Tensor], str]] = {
    "a residual": (
        lambda: derived(
            lambda c: Chain(c, "k", candidates(), length=2, residual=True), **{"k/1": "skip", "k/2": "relu"}
        ),
        lambda network, x: network(x),
        "'relu' of 'k/2'",
    ),
    "two nodes": (
        lambda: derived(
            lambda c: small_cell(c, nodes=2, keep=None),
            **{"c/1": (0,), "c/1<-0": "relu", "c/2": (0, 1), "c/2<-0": "conv", "c/2<-1": "conv"},
        ),
        lambda network, x: network(x),
        "'relu' of 'c/1<-0'",
    ),
    "an output": (
        lambda: derived(
            lambda c: small_cell(c, nodes=2, output="concat"),
            **{"c/1": (0,), "c/1<-0": "conv", "c/2": (1,), "c/2<-1": "relu"},
        ),
        lambda network, x: network(x),
        "'relu' of 'c/2<-1'",
    ),
    "an output that is a source": (
        lambda: derived(
            lambda c: small_cell(c, nodes=3, output="concat"),
            **{"c/1": (0,), "c/1<-0": "conv", "c/2": (1,), "c/2<-1": "skip", "c/3": (2,), "c/3<-2": "relu"},
        ),
        lambda network, x: network(x),
        "'relu' of 'c/3<-2'",
    ),
    "one input as two": (
        lambda: derived(
            lambda c: small_cell(c, inputs=2, nodes=1, keep=2),
            **{"c/2": (0, 1), "c/2<-0": "relu", "c/2<-1": "conv"},
        ),
        lambda network, x: network(x, x.view(x.shape)),
        "'relu' of 'c/2<-0'",
    ),
    "a list of states": (
        lambda: derived(
            lambda c: c.inputs("n", {0: lambda: both(c, "o")}),
            **{"n": (0,), "o": "relu"},
        ),
        lambda network, x: network([x, x]),
        "'relu' of 'o'",
    ),
    "blocks": (
        lambda: derived(lambda c: c.depth("d", (1, 2), lambda i: Steps(i == 0)), d=2),
        lambda network, x: network(x, x * 2),
        "'0' of 'd'",
    ),
}


@pytest.mark.parametrize("means", MEANS)
@pytest.mark.parametrize("case", TWICE)
def test_derived_networks_refuse_them_where_the_input_is_used_twice(case: str, means: str) -> None:
    make, call, culprit = TWICE[case]
    network = make()
    with MEANS[means](), pytest.raises(SpaceError, match=f"^{culprit} changes its input in place; use inplace=False$"):
        call(network, torch.randn(2, 2, 4, 4, requires_grad=True) * 1.0)


def once(inplace: bool) -> dict[str, nn.Module]:
    """Networks in which nothing is used twice."""
    candidates = {"relu": lambda: nn.ReLU(inplace), "skip": nn.Identity, "none": nn.Identity}
    row = {"c/1": (0,), "c/1<-0": "relu", "c/2": (1,), "c/2<-1": "skip", "c/3": (2,), "c/3<-2": "relu"}

    def cell(choose: Chooser) -> nn.Module:
        return Cell(choose, "c", candidates, inputs=1, nodes=3, keep=1, output="last")

    return {
        "decision": derived(lambda c: c("o", candidates), o="relu"),
        "chain": derived(lambda c: Chain(c, "k", candidates, length=2), **{"k/1": "relu", "k/2": "skip"}),
        "cell": derived(cell, **row),
        "depth": derived(lambda c: c.depth("d", (0, 2), lambda i: nn.ReLU(inplace)), d=2),
    }


@pytest.mark.parametrize("means", MEANS)
@pytest.mark.parametrize("case", once(False))
def test_derived_networks_keep_them_where_the_input_is_used_once(case: str, means: str) -> None:
    x = torch.randn(2, 2, 4, 4)
    with MEANS[means]():
        assert torch.equal(once(True)[case](x.clone()), once(False)[case](x))
