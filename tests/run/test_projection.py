"""A derivation that trains between decisions: its copy of the supernet, its state, and what it leaves alone."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import toy
from nas.derive.random import choose_randomly
from nas.errors import ConfigError, InvalidFileError, SpaceError
from nas.genotype.decision import Choice
from nas.genotype.file import Genotype
from nas.multilevel.multilevel import Multilevel
from nas.registry import kind
from nas.run import checkpoint
from nas.run.folder import read_genotypes, read_state
from nas.run.projection import STATE, TrainedProjection, projected
from nas.run.searching import _owners, _projecting, build_supernet, derive_from, searched
from nas.run.stopping import Epoch, Stop
from nas.supernet import Supernet
from runs import run_search

POLICY = "search.derivation={name: perturbation, epochs: 1, lr: 0.5}"
SHORT = ("search.steps=6", "search.epochs=3", "search.validation_batches=1")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("projection") / "whole"
    run_search(folder, toy.config(*SHORT, POLICY))
    return folder


def test_only_the_last_genotype_is_by_the_policy(whole: Path, tmp_path: Path) -> None:
    run_search(tmp_path / "strongest", toy.config(*SHORT))
    ours, theirs = (read_genotypes(path) for path in (whole, tmp_path / "strongest"))
    assert {step: each.choices for step, each in ours.items()} == {step: each.choices for step, each in theirs.items()}
    one, other = (read_state(path) or {} for path in (whole, tmp_path / "strongest"))
    same = [torch.equal(tensor, other["network"][name]) for name, tensor in one["network"].items()]
    assert same
    assert all(same), "the supernet of the search stays as it was"


@pytest.mark.parametrize("trained", [False, True])
def test_a_killed_derivation_resumes_bit_for_bit(trained: bool, whole: Path, tmp_path: Path, monkeypatch: Any) -> None:
    expected = checkpoint.load(whole / STATE)
    real = TrainedProjection.choose

    def killed(projection: TrainedProjection, label: str, choice: Choice) -> None:
        if projection._done == (2 if trained else 0):
            raise KeyboardInterrupt
        real(projection, label, choice)

    with monkeypatch.context() as patch:
        patch.setattr(TrainedProjection, "choose", killed)
        with pytest.raises(KeyboardInterrupt):
            run_search(tmp_path / "run", toy.config(*SHORT, POLICY))
    assert (tmp_path / "run" / STATE).is_file() == trained
    run_search(tmp_path / "run", toy.config(*SHORT, POLICY), resume=True)
    found = checkpoint.load(tmp_path / "run" / STATE)
    assert found["choices"] == expected["choices"]
    assert all(torch.equal(found["network"][name], tensor) for name, tensor in expected["network"].items())
    assert Genotype.load(tmp_path / "run" / "genotype.yaml") == Genotype.load(whole / "genotype.yaml")


def test_a_finished_search_derives_alike_and_another_policy_does_not_reuse_the_state(
    whole: Path, tmp_path: Path
) -> None:
    run_search(tmp_path / "plain", toy.config(*SHORT))
    policy = {"name": "perturbation", "epochs": 1, "lr": 0.5}
    assert derive_from(tmp_path / "plain", derivation=policy).choices == Genotype.load(whole / "genotype.yaml").choices
    first = checkpoint.load(tmp_path / "plain" / STATE)
    derive_from(tmp_path / "plain", derivation={**policy, "lr": 1.0})
    second = checkpoint.load(tmp_path / "plain" / STATE)
    assert first["key"] != second["key"]
    (tmp_path / "plain" / STATE).write_bytes(b"x")
    with pytest.raises(InvalidFileError, match=r"projection\.pt: damaged"):
        derive_from(tmp_path / "plain", derivation=policy)


def test_what_it_needs_is_asked_for_before_the_search(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'perturbation' must have validation batches, got none"):
        run_search(tmp_path / "a", toy.config(*SHORT, POLICY, "search.validation_batches=0"))
    with pytest.raises(ConfigError, match=r"'perturbation' takes no limits, got at_most=\{'"):
        run_search(tmp_path / "b", toy.config(*SHORT, POLICY, "search.at_most={conv: 1}"))


def test_what_changes_over_a_search_stays_where_it_ended(tmp_path: Path, monkeypatch: Any) -> None:
    seen, real = list[float](), Supernet.partly_fixed
    trained, step = list[tuple[float, int, float, float]](), Multilevel.step

    def spied(net: Supernet, choices: Any, without: Any = None) -> Any:
        seen.extend([net._progress] if without else [])
        return real(net, choices, without)

    def stepped(levels: Multilevel, k: int) -> Any:
        moved, inputs = step(levels, k), levels._evaluation.inputs("upper", k)
        assert isinstance(levels.model, Supernet)
        trained.append((levels.model._progress, levels.model._step, inputs.ramped, inputs.progress))
        return moved

    monkeypatch.setattr(Supernet, "partly_fixed", spied)
    monkeypatch.setattr(Multilevel, "step", stepped)
    skip = "search.wrappers=[{name: auxiliary_skip, candidate: scale}]"
    run_search(tmp_path / "run", toy.config(*SHORT, POLICY, skip, "search.levels.upper.hypergradient={}"))
    assert {*seen} == {1.0}
    assert [at[0] for at in trained[:6]] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert trained[6:] == [(1.0, step, 1.0, 1.0) for step in range(6, len(trained))]
    assert len(trained) > 6


def test_a_score_is_larger_for_a_better_network(whole: Path, tmp_path: Path, monkeypatch: Any) -> None:
    config, supernet, step = searched(whole)
    task = config.build_task()

    def score() -> float:
        projecting = _projecting(config, supernet, task, tmp_path, step, {})
        return projecting(rounds=1, epochs=1, lr=0.5).score("first", "conv")

    larger = score()
    monkeypatch.setattr(type(task), "metrics", {"score": "min"})
    assert score() == -larger != 0


def test_trainings_lower_the_rates_of_operation_weights_alone_and_have_no_warm_up() -> None:
    config = toy.config("search.levels.upper.parameters=[arch.*, '!arch.none']")
    owners = list(_owners(config, build_supernet(config), "network."))
    found = projected(config, 4, 0.1, owners).search
    before = config.search.levels
    rates = {name: level.optimizer["lr"] / before[name].optimizer["lr"] for name, level in found.levels.items()}
    assert rates == pytest.approx({"lower": 0.1, "middle": 0.1, "upper": 1.0})
    assert found.steps == 4
    assert not any(level.warmup for level in found.levels.values())


def test_frozen_operations_stay_so_while_decisions_are_made(tmp_path: Path, monkeypatch: Any) -> None:
    frozen, real = list[set[str]](), TrainedProjection.train

    def spied(projection: TrainedProjection) -> None:
        (freezer,), stepper = projection._levels.freezers.values(), projection._levels.steppers["lower"]
        frozen.append({*freezer.frozen})
        kept = {name: stepper.parameters[name].clone() for names in freezer.frozen.values() for name in names}
        real(projection)
        assert all(torch.equal(stepper.parameters[name], value) for name, value in kept.items())

    monkeypatch.setattr(TrainedProjection, "train", spied)
    oles = "search.levels.lower.freezing={name: oles, window: 1, threshold: 1.0}"
    run_search(tmp_path / "run", toy.config(*SHORT, POLICY, oles, "search.levels.upper.hypergradient={}"))
    first = {*read_state(tmp_path / "run")["levels"]["freezing"]["lower"]["frozen"]}  # type: ignore[index]
    assert first
    assert frozen
    assert all(first <= each for each in frozen)


def test_a_stop_that_names_an_earlier_epoch_says_that_nothing_was_trained(tmp_path: Path, monkeypatch: Any) -> None:
    class Early:
        def __call__(self, epochs: Sequence[Epoch]) -> Stop | None:
            return Stop("enough", epochs[0].step) if len(epochs) == 2 else None

    monkeypatch.setitem(kind("stopping rule")._registered, "early", Early)
    with pytest.warns(UserWarning, match="that of step 2, as derivation 'strongest' reads it: 'perturbation'"):
        run_search(tmp_path / "run", toy.config(*SHORT, POLICY, "search.stopping=early"))
    assert not (tmp_path / "run" / STATE).exists()
    assert Genotype.load(tmp_path / "run" / "genotype.yaml") == read_genotypes(tmp_path / "run")[2]


# Supernet.partly_fixed


@pytest.mark.parametrize("evaluation", ["plain", "planned"])
def test_all_decisions_made_is_fixed_and_none_is_the_supernet(evaluation: Any) -> None:
    supernet, x = supernet_of(evaluation)
    choices = choose_randomly(supernet.decisions, torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = supernet(x)
        with supernet.partly_fixed({}):
            assert torch.equal(supernet(x), before)
        with supernet.fixed(Genotype(space="darts", options=supernet.options, choices=choices)):
            expected = supernet(x)
        with supernet.partly_fixed(choices):
            torch.testing.assert_close(supernet(x), expected, rtol=1e-12, atol=1e-12)
        assert torch.equal(supernet(x), before)


@pytest.mark.parametrize("evaluation", ["plain", "planned"])
def test_a_candidate_that_is_left_out_is_a_weight_of_zero(evaluation: Any) -> None:
    supernet, x = supernet_of(evaluation)
    label, candidate = "normal/3<-0", "sep_conv_3x3"
    place = supernet.decisions[label].candidates.index(candidate)
    silent = copy.deepcopy(supernet)
    for module in silent.network.modules():  # the outputs of this candidate are zero: its last norm scales by zero
        if getattr(module, "label", "") == label:
            getattr(module, candidate)[-1] = torch.nn.Identity()
            getattr(module, candidate)[-2].weight.data.zero_()
    with torch.no_grad(), supernet.partly_fixed({"normal/2<-0": "skip_connect"}, (label, candidate)):
        weights = supernet.mixing_weights()
        assert weights[label][place] == 0
        torch.testing.assert_close(weights[label].sum(), 1 - supernet.arch[label].softmax(0)[place])
        assert weights["normal/2<-0"].max() == weights["normal/2<-0"].sum() == 1
        found = supernet(x)
        with silent.partly_fixed({"normal/2<-0": "skip_connect"}):
            if evaluation == "plain":
                torch.testing.assert_close(found, silent(x), rtol=1e-10, atol=1e-10)
    with supernet.partly_fixed({}, ("normal/3", 1)), torch.no_grad():
        kept = [module.kept for module in supernet.network.modules() if getattr(module, "label", "") == "normal/3"]
        assert set(kept) == {(0, 2)}


def test_decisions_that_are_made_get_no_gradient() -> None:
    supernet, x = supernet_of("planned")
    with supernet.partly_fixed({"normal/2<-0": "skip_connect"}):
        supernet(x).square().sum().backward()
    assert not supernet.arch["normal/2<-0"].grad
    grad = supernet.arch["normal/2<-1"].grad
    assert grad is not None
    assert grad.any()


def supernet_of(evaluation: Any) -> tuple[Supernet, torch.Tensor]:
    supernet = Supernet("darts", channels=2, cells=3, nodes=2, evaluation=evaluation).double().eval()
    generator = torch.Generator().manual_seed(0)
    for logits in supernet.arch.values():
        logits.data.copy_(torch.randn(len(logits), generator=generator))
    return supernet, torch.randn(2, 3, 8, 8, dtype=torch.double, generator=generator)


@pytest.mark.parametrize(
    ("choices", "without"),
    [({"normal/2<-0": "nope"}, None), ({"nope": "x"}, None), ({}, ("nope", 1)), ({}, ("normal/3", 9))],
)
def test_what_cannot_be_fixed_or_left_out_is_named(choices: Any, without: Any) -> None:
    with pytest.raises(SpaceError, match=r"must be .*, got"), Supernet("darts").partly_fixed(choices, without):
        pass
