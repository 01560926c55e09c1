"""Perturbed mixing weights against plain numpy, in the weight step alone, on the batch of the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

import toy
from nas.errors import ConfigError
from nas.multilevel.multilevel import Multilevel
from nas.relaxation.sampling import Draw
from nas.relaxation.wrappers.perturbation import Perturbation, _simplex
from nas.run.searching import build_levels, build_supernet
from nas.space.definition import find_space
from nas.space.wrapper import Moment
from nas.testing.wrapper import WrapperTests
from runs import assert_equal_runs, run_search
from watch import Stop, Stopped

DECISIONS = find_space("toy").describe().decisions
PRICES = torch.tensor([0.5, -1.0, 2.0], dtype=torch.double)
START = torch.tensor([0.2, 0.7, 0.1], dtype=torch.double)


class TestRandom(WrapperTests):
    wrapper = "perturbation"


def moment(**fields: Any) -> Moment:
    plain = {
        "seed": 3,
        "step": 7,
        "steps": 10,
        "progress": 0.5,
        "turn": 0,
        "learns": False,
        "training": True,
        "fixed": False,
        "candidates": {label: decision.candidates for label, decision in DECISIONS.items()},
    }
    return Moment(**{**plain, **fields})


def perturbed(at: Moment, around: Tensor = START, **options: Any) -> Tensor:
    wrapper = Perturbation(**options)
    found = wrapper.transform({"first": around}, at)["first"]
    assert isinstance(found, Tensor)
    return found


def simplex(w: np.ndarray) -> np.ndarray:
    clamped = np.clip(w, 0, 1)
    return cast("np.ndarray", clamped / clamped.sum())


def noise(at: Moment) -> np.ndarray:
    draw = Draw(at.seed, "first", DECISIONS["first"].candidates, at.step, at.progress, random=True)
    return 2 * np.array(draw.uniform(f"perturbation {at.turn}")) - 1


@pytest.mark.parametrize(("progress", "epsilon"), [(0.0, 0.03), (0.5, 0.165), (1.0, 0.3)])
def test_noise_is_uniform_within_an_epsilon_that_rises(progress: float, epsilon: float) -> None:
    at = moment(progress=progress)
    np.testing.assert_allclose(perturbed(at).numpy(), simplex(START.numpy() + epsilon * noise(at)), rtol=1e-12)
    drawn = np.concatenate([noise(moment(step=step)) for step in range(2000)])
    assert abs(drawn.mean()) < 0.03
    assert abs(drawn.std() - 1 / math.sqrt(3)) < 0.02
    assert np.abs(drawn).max() < 1


def test_it_is_a_function_of_the_moment_and_differs_by_step_seed_and_turn() -> None:
    assert torch.equal(perturbed(moment()), perturbed(moment()))
    others = [perturbed(moment(**change)) for change in ({"step": 8}, {"seed": 4}, {"turn": 1})]
    assert not any(torch.equal(perturbed(moment()), other) for other in others)


@pytest.mark.parametrize("attack", ["random", "adversarial"])
@pytest.mark.parametrize("change", [{"learns": True}, {"training": False}])
def test_only_steps_of_operation_weights_are_perturbed(change: dict[str, bool], attack: str) -> None:
    assert perturbed(moment(loss=rising, **change), attack=attack) is START


def rising(weights: Mapping[str, Tensor]) -> Tensor:
    return PRICES @ weights["first"]


def curved(weights: Mapping[str, Tensor]) -> Tensor:
    return (PRICES * weights["first"].square()).sum() + weights["first"].prod()


@pytest.mark.parametrize("loss", [rising, curved])
@pytest.mark.parametrize("progress", [0.0, 0.6])
def test_the_attack_is_signed_ascent_within_epsilon(loss: Callable[..., Tensor], progress: float) -> None:
    """Seven steps of two sevenths of epsilon from a random start, projected after each step."""
    at = moment(progress=progress, loss=loss)
    w, epsilon = START.numpy(), 0.03 + 0.27 * progress
    now = simplex(w + epsilon * noise(at))
    for _ in range(7):
        p = PRICES.numpy()
        gradient = p if loss is rising else 2 * p * now + np.array([now[1] * now[2], now[0] * now[2], now[0] * now[1]])
        moved = now + 2 * epsilon / 7 * np.sign(gradient)
        now = simplex(w + np.clip(moved - w, -epsilon, epsilon))
    found = perturbed(at, attack="adversarial")
    np.testing.assert_allclose(found.numpy(), now, rtol=1e-12)
    assert loss({"first": found}) > loss({"first": START})


@pytest.mark.parametrize("loss", [lambda w: w["first"].sum() * 0 + 1, lambda w: -(w["first"] - START).square().sum()])
def test_an_attack_that_does_not_raise_the_loss_is_undone(loss: Callable[..., Tensor]) -> None:
    assert torch.equal(perturbed(moment(loss=loss), attack="adversarial"), START)


def test_weights_stay_a_mixture_whatever_the_noise() -> None:
    found = perturbed(moment(), torch.tensor([1.0, 0.0, 0.0]), epsilon=1.0, start=1.0)
    assert found.sum().item() == pytest.approx(1)
    assert (found >= 0).all()


# --- in a search ---

ADVERSARIAL = "search.wrappers=[{name: perturbation, attack: adversarial, steps: 3}]"
FIRST = "search.levels.upper.hypergradient={}"
REUSED = "{name: gauss_newton, reuse: true, batches: repeat}"


def levels(*overrides: str) -> Multilevel:
    config = toy.config("search.steps=9", FIRST, *overrides)
    return build_levels(config, build_supernet(config), config.build_task())


def test_the_attack_is_on_the_batch_of_the_step_and_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first norm gets the same inputs as without it, so its statistics tell whether other passes moved them."""
    batches: list[Tensor] = []
    losses: list[float] = []
    attack = Perturbation._attacked

    def spied(self: Perturbation, around: Any, start: Any, epsilon: float, loss: Any) -> Any:
        found = attack(self, around, start, epsilon, loss)
        with torch.no_grad():
            losses.extend([loss(around).item(), loss(found).item()])
        return found

    monkeypatch.setattr(Perturbation, "_attacked", spied)
    ours, plain = levels(ADVERSARIAL), levels()
    evaluate = ours._evaluation._losses["lower"]

    def watched(model: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
        batches.append(batch[0])
        return cast("Tensor", evaluate(model, batch))

    ours._evaluation._losses["lower"] = watched
    after = []
    for multilevel in (ours, plain):
        torch.manual_seed(0)
        multilevel.step(0)
        after.append(torch.get_rng_state())
    assert torch.equal(*after), "random numbers of the step itself alone"
    ((first, mine), (second, theirs)) = (
        (multilevel.model.network.first.conv[1], multilevel.model.network.norm)  # type: ignore[union-attr, index]
        for multilevel in (ours, plain)
    )
    assert torch.equal(first.running_mean, second.running_mean)
    assert first.num_batches_tracked == mine.num_batches_tracked == 1
    assert not torch.equal(mine.running_mean, theirs.running_mean), "the mixture was another one"
    assert len(batches) == 1 + 1 + 3 + 1 + 2, "the step, before, three steps, after; and the two of this test"
    assert all(torch.equal(batch, toy.config().build_task().batch("train", 0)[0]) for batch in batches)
    assert losses[1] > losses[0]


@pytest.mark.parametrize("evaluation", ["plain", "planned"])
@pytest.mark.parametrize("entry", [ADVERSARIAL, "search.wrappers=[perturbation]"])
def test_a_search_with_it_is_resumed_bit_for_bit(entry: str, evaluation: str, tmp_path: Path) -> None:
    config = toy.config("search.steps=6", "search.epochs=3", FIRST, entry, f"search.evaluation={evaluation}")
    run_search(tmp_path / "whole", config)
    with pytest.raises(Stopped):
        run_search(tmp_path / "run", config, Stop(3))
    run_search(tmp_path / "run", config, resume=True)
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["search.wrappers=[{name: perturbation, start: 0.5}]"], r"start must be at most epsilon, 0\.3, got 0\.5"),
        (["search.wrappers=[{name: perturbation, attack: pgd}]"], r"attack must be one of random, adversarial"),
        (["search.wrappers=[perturbation]", "search.relaxation=gumbel"], r"needs mixing weights that are the softmax"),
        (["search.wrappers=[perturbation, perturbation]"], r"listed once"),
        (
            ["search.wrappers=[perturbation]", f"search.levels.upper.hypergradient={{middle: {REUSED}}}"],
            r"hypergradient\.middle \(gauss_newton\)\.reuse must be false with wrapper 'perturbation'",
        ),
    ],
)
def test_what_cannot_be_perturbed_is_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        levels(*overrides)
    assert "\n" not in str(caught.value)


def test_weights_that_are_all_clamped_to_zero_become_the_largest() -> None:
    assert _simplex(torch.tensor([-0.2, -0.1, -0.3])).tolist() == [0.0, 1.0, 0.0]


def test_weights_are_clamped_to_one_before_they_are_normalized() -> None:
    assert _simplex(torch.tensor([1.5, 0.25])).tolist() == pytest.approx([0.8, 0.2])
    assert _simplex(torch.tensor([0.3, 0.2])).tolist() == pytest.approx([0.6, 0.4])


def test_a_candidate_without_a_gradient_is_not_moved_and_no_gradient_leads_back() -> None:
    at = moment(progress=1.0, loss=lambda w: w["first"][0])
    start = simplex(START.numpy() + 0.3 * noise(at))
    found = perturbed(at, START.clone().requires_grad_(), attack="adversarial", steps=1)
    moved = simplex(START.numpy() + np.clip(start + np.array([0.6, 0, 0]) - START.numpy(), -0.3, 0.3))
    np.testing.assert_allclose(found.numpy(), moved, rtol=1e-12)
    assert not found.requires_grad
    assert not perturbed(moment(), START.clone().requires_grad_()).requires_grad
