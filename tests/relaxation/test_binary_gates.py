"""Binary gates, by enumeration of pairs and of the active one of each."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.files import convert
from nas.multilevel.level import Level
from nas.multilevel.multilevel import Multilevel
from nas.relaxation.binary_gates import BinaryGates
from nas.relaxation.sampling import Draw, draws
from nas.space.chooser import Chooser
from nas.space.definition import SearchSpace
from nas.space.mixed import MixedDepth, MixedOperation, MixedWidth, Sampled
from nas.supernet import Supernet

LOGITS = torch.tensor([0.3, -1.0, 1.2, 0.1], dtype=torch.double)
P = LOGITS.softmax(0).tolist()
VALUES = torch.tensor([2.0, -1.0, 0.5, 4.0], dtype=torch.double)


class Fixed(Draw):
    """A draw of the pair `label`, such as "02", of which the first is active."""

    def ranked(self, noise: object) -> list[int]:
        return [*map(int, self.label), *(i for i in range(4) if str(i) not in self.label)]


def fixed(active: int, silent: int) -> Draw:
    return Fixed(0, f"{active}{silent}", "wxyz", 0, 0.0, random=True)


def draw_of(step: int, logits: Tensor = LOGITS, random: bool = True) -> Draw:
    ((_, _, draw),) = draws({"a": logits}, {"a": "wxyz"}, seed=5, step=step, progress=0.0, random=random)
    return draw


def likelihood(active: int, silent: int) -> float:
    """The probability of a pair drawn without replacement, times that of its active one."""
    i, j = active, silent
    return (P[i] * P[j] / (1 - P[i]) + P[j] * P[i] / (1 - P[j])) * P[i] / (P[i] + P[j])


def test_pairs_follow_their_likelihood_and_weight_steps_the_softmax() -> None:
    logits, count = LOGITS.clone().requires_grad_(), 3000
    pairs: Counter[tuple[int, ...]] = Counter()
    paths: Counter[int] = Counter()
    for step in range(count):
        found, path = BinaryGates().draw(logits, draw_of(step)), BinaryGates().draw(LOGITS, draw_of(step))
        pairs[found.choice, *found.silent] += 1
        paths[path.choice] += 1
        assert path.silent == ()
    assert sum(likelihood(*pair) for pair in itertools.permutations(range(4), 2)) == pytest.approx(1)
    for pair in itertools.permutations(range(4), 2):
        p = likelihood(*pair)
        assert pairs[pair] / count == pytest.approx(p, abs=4 * (p * (1 - p) / count) ** 0.5)
    for i, p in enumerate(P):
        assert paths[i] / count == pytest.approx(p, abs=4 * (p * (1 - p) / count) ** 0.5)


def test_the_gradient_is_that_of_the_rescaled_softmax_of_the_pair() -> None:
    """Over all draws its mean is the enumerated one, which is not the exact gradient even of a linear loss."""
    expected, mean = torch.zeros(4, dtype=torch.double), torch.zeros(4, dtype=torch.double)
    for i, j in itertools.permutations(range(4), 2):
        logits = LOGITS.clone().requires_grad_()
        found = BinaryGates().draw(logits, fixed(i, j))
        assert (found.choice, found.silent) == (i, (j,))
        assert found.weights.tolist() == [float(k == i) for k in range(4)]
        (gradient,) = torch.autograd.grad(found.weights @ VALUES, logits)
        q = P[i] / (P[i] + P[j])
        one = torch.zeros(4, dtype=torch.double)
        one[i] = q * (1 - q) * (VALUES[i] - VALUES[j])
        one[j] = -one[i]
        assert torch.allclose(gradient, one, atol=1e-14)
        mean += likelihood(i, j) * gradient
        expected += likelihood(i, j) * one
    p = LOGITS.softmax(0)
    exact = p * (VALUES - p @ VALUES)
    assert torch.allclose(mean, expected)
    assert (mean - exact).abs().max() > 0.02


@pytest.mark.parametrize("change", [[0.5, -0.2, 0.1, 0.0], [-3.0, 1.0, 2.0, 0.7]])
def test_a_step_leaves_the_probabilities_of_all_others(change: Sequence[float]) -> None:
    for i, j in itertools.permutations(range(4), 2):
        after = LOGITS + torch.tensor(change, dtype=torch.double)
        corrected = BinaryGates().after_step(LOGITS, after, fixed(i, j))
        others = [k for k in range(4) if k not in (i, j)]
        assert torch.equal(corrected[others], LOGITS[others])
        now = corrected.softmax(0)
        assert now[others].tolist() == pytest.approx([P[k] for k in others], rel=1e-12)
        ratio = (corrected[i] - corrected[j]).item()
        assert ratio == pytest.approx((after[i] - after[j]).item(), rel=1e-12)


def test_eval_mode_takes_the_two_strongest() -> None:
    found = BinaryGates().draw(LOGITS.clone().requires_grad_(), draw_of(0, random=False))
    assert (found.choice, found.silent) == (2, (0,))
    one = torch.zeros(1, requires_grad=True)
    ((_, _, draw),) = draws({"a": one}, {"a": "x"}, seed=0, step=0, progress=0.0, random=True)
    assert BinaryGates().draw(one, draw)[::2] == (0, ())


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.5, dtype=torch.double))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x


def test_a_silent_candidate_has_a_gradient_of_its_gate_alone() -> None:
    """Whether it is an operation, an input that is returned as it is, or a number of blocks or channels."""
    weights = torch.tensor([1.0, 0.0, 0.0], dtype=torch.double, requires_grad=True)
    x = torch.tensor([[2.0, 3.0, 5.0]], dtype=torch.double, requires_grad=True)

    def mixing(label: str) -> Sampled:
        return Sampled(0, weights, (2,))

    operation = MixedOperation("a", {"layer": Layer(), "other": Layer(), "skip": nn.Identity()}, mixing)
    depth = MixedDepth("d", (1, 2, 3), [Layer(), Layer(), Layer()], mixing)
    width = MixedWidth("w", (1, 2, 3), mixing)
    for module, gates in ((operation, [15.0, 0.0, 10.0]), (depth, [15.0, 0.0, 33.75]), (width, [2.0, 5.0, 10.0])):
        output = module(x)
        (gate,) = torch.autograd.grad(output.sum(), weights, create_graph=True)
        assert gate.tolist() == gates
        parameters = dict(module.named_parameters())
        for number, g in enumerate((gate[2], gate[0])):
            found = torch.autograd.grad(g, [x, *parameters.values()], allow_unused=True, retain_graph=True)
            reached = any(each is not None and each.any() for each in found)
            assert reached == (number == 1 or module is width), "a graph reaches what is active alone"


def space(choose: Chooser, /) -> nn.Module:
    return choose("a", dict.fromkeys("wxyz", Layer))


@pytest.mark.parametrize("optimizer", [{"name": "sgd", "lr": 0.5, "momentum": 0.9}, {"name": "adam", "lr": 0.1}])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_search_moves_two_logits_a_step_and_keeps_their_mass(optimizer: Any, mode: str) -> None:
    supernet = Supernet(SearchSpace("s", space), relaxation="binary_gates").double()
    for number, parameter in enumerate(supernet.weights()):
        parameter.data.fill_(1.0 + number)
    common = {"loss": "sum", "split": "s", "mode": mode}
    lower = {"parameters": ["network.*"], "optimizer": {"name": "sgd", "lr": 0.01}, **common}
    levels = {
        "lower": convert(lower, Level, "lower"),
        "upper": convert({"parameters": ["arch.*"], "optimizer": optimizer, **common}, Level, "upper"),
    }
    x = torch.ones(1, 3, dtype=torch.double)
    engine = Multilevel(supernet, levels, {"sum": lambda net, x: net(x).square().sum()}, lambda *_: x, 8)
    everything = set()
    for k in range(8):
        before = supernet.arch["a"].detach().clone()
        engine.step(k)
        after = supernet.arch["a"].detach()
        moved = (before != after).nonzero().flatten().tolist()
        assert len(moved) == 2
        assert after[moved].logsumexp(0).item() == pytest.approx(before[moved].logsumexp(0).item(), rel=1e-12)
        everything |= set(moved)
        if k == 0:  # the loss grows with the number of the candidate
            assert after[min(moved)] > before[min(moved)]
    assert len(everything) > 2 or mode == "eval"
