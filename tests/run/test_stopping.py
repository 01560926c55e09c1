"""Stopping rules: when each says stop, and that a search which one ends is resumed to the same end."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import toy
from nas.errors import ConfigError, NASError
from nas.genotype.decision import Choice
from nas.genotype.file import Genotype, Provenance
from nas.registry import register
from nas.report.page import write_report
from nas.run.collapse import COLLAPSE
from nas.run.folder import read_genotypes, read_records
from nas.run.observer import observed
from nas.run.stopping import STOPPING, Epoch, Stop, create_rule, told
from nas.space.definition import Description, SearchSpace, find_space
from runs import assert_equal_runs, last, run_search
from watch import Log, Stopped
from watch import Stop as Kill

EMPTY = Genotype(space="toy", choices={})


@register("stopping rule", "test_third")
class Third:
    """Stops at the third epoch, and returns the genotype of the second."""

    def __call__(self, epochs: Sequence[Epoch], /) -> Stop | None:
        return Stop("three are enough", epochs[1].step) if len(epochs) == 3 else None


def rule(entry: str | dict[str, Any], description: Description | None = None, epochs: int = 50) -> Any:
    return create_rule(entry, description or find_space("toy").describe(), epochs)


# --- a search that a rule ends ---

CONFIG = ("search.steps=12", "search.epochs=6", "search.stopping=test_third")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search that a rule ends after six of twelve steps."""
    folder = tmp_path_factory.mktemp("stopping") / "whole"
    run_search(folder, toy.config(*CONFIG))
    return folder


def test_a_rule_ends_the_search_and_names_the_genotype(whole: Path, tmp_path: Path) -> None:
    expected = {"rule": "test_third", "reason": "three are enough", "genotype": 4, "steps": 12}
    (record,) = [record for record in read_records(whole) if record["kind"] == STOPPING]
    assert record == {"step": 6, "kind": STOPPING, **expected}
    assert last(whole)["step"] == 6
    genotypes = read_genotypes(whole)
    assert list(genotypes) == [2, 4, 6]
    assert Genotype.load(whole / "genotype.yaml") == genotypes[4]
    assert (whole / "genotype.svg").read_bytes() == (whole / "genotypes" / "step-000004.svg").read_bytes()
    sentence = "stopped after step 6 of 12 by test_third: three are enough; the genotype is that of step 4"
    assert told(record) == sentence
    assert f"The search {sentence}." in write_report(whole, tmp_path / "report.html").path.read_text()
    unstopped = toy.config(*CONFIG[:2])
    run_search(tmp_path / "run", unstopped)
    records = [record for record in read_records(tmp_path / "run") if record["step"] <= 6]
    assert records == [record for record in read_records(whole) if record["kind"] != STOPPING]


@pytest.mark.parametrize("stop", [0, 2, 3, 5, 6])
def test_killed_after_any_step_it_ends_the_same(stop: int, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run_search(tmp_path / "run", toy.config(*CONFIG), Kill(stop))
    run_search(tmp_path / "run", toy.config(*CONFIG), resume=True)
    assert_equal_runs(whole, tmp_path / "run")


def test_resumed_after_its_stop_it_takes_no_step(whole: Path, tmp_path: Path) -> None:
    """Also if it was killed before the final genotype was written."""
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / "genotype.yaml").unlink()
    log = Log()
    run_search(tmp_path / "run", toy.config(*CONFIG), log, resume=True)
    assert log.done == [6]
    assert_equal_runs(whole, tmp_path / "run")


def test_a_stop_at_the_last_epoch_is_a_stop(tmp_path: Path) -> None:
    run_search(tmp_path / "run", toy.config("search.steps=3", "search.epochs=3", "search.stopping=test_third"))
    assert Genotype.load(tmp_path / "run" / "genotype.yaml") == read_genotypes(tmp_path / "run")[2]


# --- DARTS+ ---


@pytest.fixture(scope="module")
def cells() -> Description:
    """The DARTS space, small."""
    return find_space("darts").describe(channels=2, cells=3)


def derived(skips: Mapping[str, float], reduced: Sequence[str] = ()) -> list[Epoch]:
    """An epoch whose genotype has these skip connections, by label, with their margins."""
    choices: dict[str, Choice] = dict.fromkeys([*skips, *reduced], "skip_connect")
    choices["normal/2<-1"] = "sep_conv_3x3"
    provenance = Provenance(margins={**skips, **dict.fromkeys(reduced, 0.5), "normal/2<-1": 0.5})
    return [Epoch(7, Genotype(space="darts", choices=choices, provenance=provenance), {}, {})]


def test_darts_plus_counts_skip_connections_of_the_normal_cell(cells: Description) -> None:
    plus = rule("darts_plus", cells)
    edges = [label for label in cells.decisions if label.startswith("normal") and "<" in label]
    reduced = [label for label in cells.decisions if label.startswith("reduce") and "<" in label]
    assert plus(derived({edges[0]: 0.1}, reduced)) is None
    assert plus(derived({edges[0]: 0.1, edges[2]: 0.0})) is None, "a tie is no skip connection yet"
    found = plus(derived({edges[0]: 0.1, edges[2]: 0.2}))
    assert found == Stop("cell 'normal' has 2 skip connections, the limit is 2", 7)
    assert rule({"name": "darts_plus", "skips": 3}, cells)(derived({edges[0]: 0.1, edges[2]: 0.2})) is None
    assert rule({"name": "darts_plus", "cell": "reduce"}, cells)(derived({}, reduced[:2])) is not None


def ranked(*weights: Sequence[float | None]) -> list[Epoch]:
    """Epochs with these mixing weights of the toy's first decision, whose candidates all have parameters."""
    return [Epoch(10 * i, EMPTY, {"first": each, "second": [0.4, 0.6]}, {}) for i, each in enumerate(weights, 1)]


def test_a_ranking_is_stable_once_it_has_not_changed_for_some_epochs() -> None:
    stable = rule({"name": "stable_ranking", "stable_for": 2})
    a, b = [0.5, 0.3, 0.2], [0.5, 0.2, 0.3]
    reason = "the ranking of the candidates has not changed for 2 epochs"
    assert stable(ranked(a, a)) is None, "two rankings are one epoch apart"
    assert stable(ranked(b, a, a)) is None
    assert stable(ranked(b, a, [0.6, 0.25, 0.15], a)) == Stop(reason, 40)
    assert stable(ranked(b, b, a, a, a)) == Stop(reason, 50), "earlier epochs do not count"
    assert [rule("stable_ranking")(ranked(*[a] * epochs)) is None for epochs in (10, 11)] == [True, False]
    assert stable(ranked(a, a, b)) is None
    assert stable(ranked([0.4, 0.4, 0.2], [0.5, 0.3, 0.2], [0.6, 0.4, 0.0])) == Stop(reason, 30), "a tie is none"
    assert stable(ranked(*[[1 / 3] * 3] * 5)) is None, "nothing is ranked before the logits move"
    assert stable(ranked(*[[None, 0.5, 0.5]] * 5)) is None, "not finite"


class One(nn.Module):
    """An operation with one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))


def test_one_parameter_makes_a_candidate_learnable_and_two_candidates_a_ranking() -> None:
    candidates = {"none": nn.Identity, "a": One, "b": One}
    stable = rule(
        {"name": "stable_ranking", "stable_for": 1}, SearchSpace("", lambda choose: choose("x", candidates)).describe()
    )
    first, *others = [0.1, 0.5, 0.4], [0.6, 0.3, 0.1], [0.1, 0.4, 0.5]
    found = [stable([Epoch(i, EMPTY, {"x": each}, {}) for i, each in enumerate((first, other))]) for other in others]
    assert [stop is None for stop in found] == [False, True]


def test_candidates_without_parameters_are_not_ranked(cells: Description) -> None:
    stable = rule({"name": "stable_ranking", "stable_for": 1}, cells)
    labels = [label for label, decision in cells.decisions.items() if decision.kind == "operation"]
    names = cells.decisions[labels[0]].candidates
    learnable = {"sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"}
    falling = [0.01 * (len(names) - i) for i in range(len(names))]
    others = [weight if name in learnable else 0.5 * weight for name, weight in zip(names, falling, strict=True)]
    reduced = dict.fromkeys((label for label in labels if label.startswith("reduce")), falling)  # some skips convolve
    epochs = [Epoch(1, EMPTY, {**dict.fromkeys(labels, each), **reduced}, {}) for each in (falling, others)]
    assert sorted(falling, reverse=True) != sorted(others, reverse=True)
    assert stable(epochs) is not None
    changed = [0.5 if name == "dil_conv_3x3" else weight for name, weight in zip(names, falling, strict=True)]
    assert stable([epochs[0], Epoch(2, EMPTY, {**epochs[1].weights, labels[-1]: changed}, {})]) is None


# --- RobustDARTS ---


def curved(values: Sequence[float | None]) -> list[Epoch]:
    return [Epoch(10 * i, EMPTY, {}, {"eigenvalue": value}) for i, value in enumerate(values, 1)]


def test_robust_darts_returns_the_centre_of_the_earlier_window_and_not_before_its_start() -> None:
    robust = rule("robust_darts")
    growing = [1.1**i for i in range(40)]  # by 1.46 in four epochs
    first = next(count for count in range(1, 40) if robust(curved(growing[:count])))
    assert first == 17, "the earlier centre is epoch 10, counted from 0; the later one 14, with two epochs after it"
    assert robust(curved(growing[:17])).step == 110
    assert "more than 30% in 4 epochs" in robust(curved(growing[:17])).reason
    slow = [1.06**i for i in range(40)]  # by 1.26
    assert not any(robust(curved(slow[:count])) for count in range(1, 40))
    assert rule({"name": "robust_darts", "factor": 1.2})(curved(slow[:17])).step == 110
    assert rule({"name": "robust_darts", "start": 0, "delta": 1, "window": 1, "factor": 1})(curved([1, 2])).step == 10
    assert robust(curved([-value for value in growing])) is None
    assert robust(curved([*growing[:16], None])) is None


def test_robust_darts_ends_a_search(tmp_path: Path) -> None:
    entry = "{name: robust_darts, window: 1, delta: 1, factor: 1, start: 0}"
    config = toy.config("search.steps=12", "search.epochs=6", "search.hessian_products=3", f"search.stopping={entry}")
    run_search(tmp_path / "run", config)
    values = [record["eigenvalue"] for record in observed(read_records(tmp_path / "run"), COLLAPSE)]
    assert len(values) < 6
    assert values[-1] > values[-2] > 0
    assert not any(later > earlier > 0 for earlier, later in itertools.pairwise(values[:-1]))
    assert Genotype.load(tmp_path / "run" / "genotype.yaml") == list(read_genotypes(tmp_path / "run").values())[-2]


# --- what cannot work ---


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("darts_pluss", r"stopping rule 'darts_pluss'.*did you mean 'darts_plus'"),
        ({"name": "darts_plus", "cell": "normal"}, r"cell 'normal'"),
        ({"name": "robust_darts", "window": 4}, r"search\.stopping\.window must be odd.*got 4"),
        ({"name": "robust_darts", "factor": 0.5}, r"search\.stopping\.factor must be at least 1, got 0\.5"),
        ({"name": "robust_darts", "start": 44}, r"epoch 51, must be within search\.epochs, got 50"),
        ({"name": "stable_ranking", "stable_for": 50}, r"epoch 51, must be within search\.epochs, got 50"),
        ({"name": "stable_ranking", "stable_for": 0}, r"search\.stopping\.stable_for must be at least 1, got 0"),
    ],
)
def test_a_rule_that_cannot_stop_the_search_is_one_line(entry: str | dict[str, Any], message: str) -> None:
    with pytest.raises(NASError, match=message) as caught:
        rule(entry)
    assert "\n" not in str(caught.value)


def test_more_skips_than_the_cell_has_edges(cells: Description) -> None:
    with pytest.raises(ConfigError, match=r"search\.stopping\.skips must be at most 14, .*'normal', got 15"):
        rule({"name": "darts_plus", "skips": 15}, cells)


def test_robust_darts_needs_eigenvalues(tmp_path: Path) -> None:
    config = toy.config("search.epochs=20", "search.stopping=robust_darts")
    with pytest.raises(ConfigError, match=r"'robust_darts' needs the largest eigenvalue.*hessian_products"):
        run_search(tmp_path / "run", config)
    assert not (tmp_path / "run" / "metrics.jsonl").stat().st_size
