"""The Gumbel straight-through relaxation, and the sampled path of a supernet."""

from __future__ import annotations

import copy
import math
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.files import convert
from nas.multilevel.level import Level
from nas.multilevel.multilevel import Multilevel
from nas.registry import kind
from nas.relaxation.gumbel import Gumbel
from nas.relaxation.sampling import Draw, Sampling, draws
from nas.space.cell import Cell
from nas.space.chooser import Chooser
from nas.space.definition import SearchSpace
from nas.supernet import Supernet

LOGITS = torch.tensor([0.3, -1.0, 2.0], dtype=torch.double)


def drawn(relaxation: Any, step: int = 0, progress: float = 0.0, logits: Tensor = LOGITS, random: bool = True) -> Any:
    """The weights of one decision `a` of the candidates x, y, z, and its noise."""
    ((_, given, draw),) = draws({"a": logits}, {"a": "xyz"}, seed=3, step=step, progress=progress, random=random)
    return relaxation.draw(given, draw), draw.gumbel()


def test_a_sample_has_weight_one_and_the_gradient_of_the_softmax() -> None:
    logits = LOGITS.clone().requires_grad_()
    for progress, temperature in ((0.0, 8.0), (0.5, 5.0), (1.0, 2.0)):
        found, noise = drawn(Gumbel(8.0, 2.0), 1, progress, logits)
        scores = [a + g for a, g in zip(LOGITS.tolist(), noise, strict=True)]
        choice = scores.index(max(scores))
        assert found.choice == choice
        assert found.weights.tolist() == [float(i == choice) for i in range(3)]
        powers = [math.exp(score / temperature) for score in scores]
        p = [power / sum(powers) for power in powers]
        (gradient,) = torch.autograd.grad(found.weights[choice], logits)
        expected = [p[choice] * (float(i == choice) - p[i]) / temperature for i in range(3)]
        assert gradient.tolist() == pytest.approx(expected, rel=1e-12)


def test_samples_follow_the_softmax() -> None:
    counts = Counter(drawn(Gumbel(), step)[0].choice for step in range(4000))
    for i, p in enumerate(LOGITS.softmax(0).tolist()):
        assert counts[i] / 4000 == pytest.approx(p, abs=4 * (p * (1 - p) / 4000) ** 0.5)


def test_noise_is_a_function_of_seed_label_candidate_and_step() -> None:
    def gumbel(seed: int, label: str, candidates: str, step: int, purpose: str = "") -> list[float]:
        return Draw(seed, label, candidates, step, 0.0, random=True).gumbel(purpose)

    base = gumbel(0, "a", "xy", 0)
    assert gumbel(0, "a", "yx", 0) == base[::-1]
    others = [gumbel(1, "a", "xy", 0), gumbel(0, "b", "xy", 0), gumbel(0, "a", "xy", 1), gumbel(0, "a", "xy", 0, "p")]
    assert len({number for numbers in (base, *others) for number in numbers}) == 10
    many = [number for step in range(2000) for number in gumbel(0, "a", "xy", step)]
    assert sum(many) / len(many) == pytest.approx(0.5772, abs=0.08)  # Euler's constant, within four deviations


def test_without_noise_the_strongest_is_taken() -> None:
    for logits, expected in ((LOGITS, 2), (-LOGITS, 1), (0 * LOGITS, 0)):
        found, noise = drawn(Gumbel(), logits=logits, random=False)
        assert (found.choice, noise) == (expected, [0.0] * 3)


def test_it_samples_and_softmax_does_not() -> None:
    made = kind("relaxation").create({"name": "gumbel", "temperature": 5, "final_temperature": 0.5}, "relaxation")
    assert (made.temperature, made.final_temperature) == (5, 0.5)
    assert isinstance(made, Sampling)
    assert not isinstance(kind("relaxation").create("softmax", "relaxation"), Sampling)


class Counted(nn.Module):
    calls = 0

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x: Tensor) -> Tensor:
        Counted.calls += 1
        return self.factor * x


def space(choose: Chooser, /) -> nn.Module:
    candidates: Any = {"one": lambda: Counted(1.0), "two": lambda: Counted(2.0), "three": lambda: Counted(3.0)}
    cell = Cell(choose, "cell", candidates, inputs=1, nodes=2, output="last")
    depth = choose.depth("depth", (1, 3), lambda i: Counted(0.5))
    width = choose.width("width", (1, 2))
    return nn.Sequential(cell, choose("macro", candidates), depth, width)


def test_only_the_sampled_path_is_computed() -> None:
    supernet = Supernet(SearchSpace("s", space), relaxation="gumbel")
    x = torch.ones(1, 2)
    drawn = set()
    for step in range(30):
        supernet.on_progress(step, 30)
        Counted.calls = 0
        supernet(x)
        drawn.add(Counted.calls)
    assert drawn == {4 + 1, 4 + 3}  # three edges and a macro decision, and as many blocks as the depth takes


def test_a_step_draws_the_same_again_and_another_step_others() -> None:
    supernet = Supernet(SearchSpace("s", space), relaxation="gumbel")
    x = torch.ones(1, 2)
    outputs = []
    for step in [*range(20), *range(20)]:
        supernet.on_progress(step, 20)
        outputs.append(supernet(x).sum().item())
    assert outputs[:20] == outputs[20:]
    assert len(set(outputs[:20])) > 5
    assert supernet(x).sum().item() == outputs[-1]
    assert copy.deepcopy(supernet)(x).sum().item() == outputs[-1]


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_the_last_step_has_the_final_temperature(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    supernet = Supernet(SearchSpace("s", space), relaxation="gumbel")
    heard: set[float] = set()
    draw = Gumbel.draw
    monkeypatch.setattr(Gumbel, "draw", lambda self, a, how: (heard.add(how.progress), draw(self, a, how))[1])
    for step in range(steps):
        supernet.on_progress(step, steps)
        heard.clear()
        supernet(torch.ones(1, 2))
        assert heard == {step / (steps - 1) if steps > 1 else 0.0}
    assert steps == 1 or heard == {1.0}


def test_eval_mode_takes_the_strongest_and_derives_by_probability() -> None:
    supernet = Supernet(SearchSpace("s", space), relaxation="gumbel")
    for logits in supernet.arch.values():
        logits.data = torch.linspace(0, 1, len(logits))
    genotype = supernet.train().derive()
    assert genotype.choices["macro"] == "three"
    assert genotype.choices["depth"] == 3
    assert supernet.mixing_weights()["macro"].tolist() == pytest.approx(torch.linspace(0, 1, 3).softmax(0).tolist())
    x = torch.ones(1, 2)
    with torch.no_grad():
        assert torch.equal(supernet.eval()(x), supernet.derived(genotype)(x))


def test_a_loop_that_tells_no_step_is_warned_once() -> None:
    x = torch.ones(1, 2)
    supernet = Supernet(SearchSpace("s", space), relaxation="gumbel")
    supernet(x)  # one pass is no loop
    with pytest.warns(UserWarning, match=r"repeats the draws .* supernet\.on_progress\(step, steps\)"):
        supernet(x)
    for _ in range(3):  # where a further warning would be an error
        supernet(x)
    for quiet in (supernet.eval(), Supernet(SearchSpace("s", space))):
        quiet(x), quiet(x)


def test_the_loop_of_this_package_tells_the_step() -> None:
    supernet = Supernet(SearchSpace("s", space), relaxation="gumbel")
    common = {"split": "s", "optimizer": {"name": "sgd", "lr": 0.1}}
    unrolled = {"hypergradient": {"lower": {"name": "unrolled"}}}
    levels = {
        "lower": convert({"parameters": ["network.*"], "loss": "mean", **common}, Level, "lower"),
        "upper": convert({"parameters": ["arch.*"], "loss": "sum", **unrolled, **common}, Level, "upper"),
    }
    losses: Any = {"sum": lambda net, x: net(x).square().sum(), "mean": lambda net, x: net(x).square().mean()}
    engine = Multilevel(supernet, levels, losses, lambda split, index: torch.ones(1, 2), 5)
    for k in range(5):
        engine.step(k)


class Noisy(nn.Module):
    """A relaxation that draws its weights in train mode."""

    def forward(self, logits: Tensor) -> Tensor:
        return (logits + 3 * torch.randn_like(logits) if self.training else logits).softmax(-1)


def test_a_relaxation_that_samples_does_not_make_the_genotype_random() -> None:
    supernet = Supernet(SearchSpace("s", space), relaxation=Noisy())
    x = torch.ones(1, 2)
    before = torch.get_rng_state()
    found = [supernet.derive() for _ in range(10)]
    weights = [supernet.mixing_weights()["macro"] for _ in range(3)]
    assert torch.equal(torch.get_rng_state(), before)
    assert all(genotype == found[0] for genotype in found)
    assert torch.equal(weights[0], torch.full((3,), 1 / 3))
    assert supernet.relaxation.training
    assert len({supernet(x).sum().item() for _ in range(5)}) == 5, "but the search is"
    assert len({supernet.eval()(x).sum().item() for _ in range(5)}) == 1


def test_the_sampled_weights_are_the_ones_that_get_gradients() -> None:
    supernet = Supernet(SearchSpace("s", space), relaxation="gumbel")
    supernet.on_progress(3, 10)
    supernet(torch.ones(1, 2)).sum().backward()
    for label, logits in supernet.arch.items():
        assert logits.grad is not None, label
        assert logits.grad.abs().sum() > 0
