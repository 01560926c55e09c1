"""Observers of the configuration: what they may do, what is recorded, and their state in the checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
import torch

import toy
from nas.errors import ConfigError, InvalidFileError, NASError
from nas.genotype.file import Genotype
from nas.kernels.evaluation import in_mode
from nas.registry import register
from nas.run import proposals
from nas.run.folder import Run, read_records
from nas.run.observer import Observer, observed
from nas.run.searching import search
from nas.supernet import Supernet
from watch import Stop, Stopped

SHORT = ("search.steps=6", "search.epochs=3")


@register("observer", "mean_norm")
class MeanNorm(Observer):
    """The norm of the arch parameters, averaged over the epochs so far with noise of its own: it has state."""

    def __init__(self, *, task: Any, scale: Annotated[float, msgspec.Meta(gt=0)] = 1.0) -> None:
        self.task, self.scale = task, scale
        self.norms: list[float] = []
        self.noise = torch.Generator().manual_seed(0)

    def on_epoch(self, step: int, supernet: Supernet, genotype: Genotype, /) -> dict[str, float]:
        norm = torch.cat(list(supernet.arch.values())).norm().item()
        self.norms.append(norm + torch.rand((), generator=self.noise).item())
        return {"norm": self.scale * sum(self.norms) / len(self.norms), "epochs": len(self.norms)}

    def state_dict(self) -> dict[str, Any]:
        return {"norms": self.norms, "noise": self.noise.get_state()}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        self.norms = list(state["norms"])
        self.noise.set_state(state["noise"])


class Meddler(Observer):
    """Does something to the supernet."""

    name = "meddler"

    def __init__(self, act: Callable[[Supernet], object]) -> None:
        self.act = act

    def on_epoch(self, step: int, supernet: Supernet, genotype: Genotype, /) -> Any:
        return self.act(supernet)


def run_search(folder: Path, *observers: Observer, overrides: tuple[str, ...] = ()) -> None:
    config = toy.config(*SHORT, *overrides)
    with Run.create(folder, config.dump(), config.seed) as run:
        search(config, run, observers)


CONFIGURED = ("search.observers=[{name: mean_norm, scale: 2}]",)


def test_what_it_returns_is_recorded_at_each_epoch(tmp_path: Path) -> None:
    run_search(tmp_path / "run", overrides=CONFIGURED)
    records = observed(read_records(tmp_path / "run"), "mean_norm")
    assert [record["step"] for record in records] == [2, 4, 6]
    assert [record["epochs"] for record in records] == [1, 2, 3]
    assert records[0].keys() == {"step", "kind", "observer", "norm", "epochs"}
    run_search(tmp_path / "plain")
    rest = [record for record in read_records(tmp_path / "run") if record not in records]
    assert rest == read_records(tmp_path / "plain"), "it changes nothing"


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_killed_run_resumes_with_the_state_of_its_observers(stop: int, tmp_path: Path) -> None:
    run_search(tmp_path / "whole", overrides=CONFIGURED)
    with pytest.raises(Stopped):
        run_search(tmp_path / "run", Stop(stop), overrides=CONFIGURED)
    config = toy.config(*SHORT, *CONFIGURED)
    with Run.open(tmp_path / "run", config.dump()) as run:
        search(config, run)
    assert read_records(tmp_path / "run") == read_records(tmp_path / "whole")


def test_state_of_an_observer_that_is_gone_is_dropped_with_a_warning(tmp_path: Path) -> None:
    config = toy.config(*SHORT)
    with Run.create(tmp_path / "run", config.dump(), 0) as run:
        with pytest.raises(Stopped):
            search(config, run, [MeanNorm(task=None), Stop(3)])
        with pytest.warns(UserWarning, match="'MeanNorm' has state"):
            search(config, run)


class Mistaken(Observer):
    """Reads what it did not write."""

    name = "mistaken"

    def state_dict(self) -> dict[str, Any]:
        return {"a": 1}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        state["b"]


@pytest.mark.parametrize("overrides", [(), ("search.searcher=random", "search.score=params")])
def test_an_error_in_an_observer_names_it(overrides: tuple[str, ...], tmp_path: Path) -> None:
    config = toy.config(*SHORT, *overrides)
    with Run.create(tmp_path / "run", config.dump(), 0) as run:
        with pytest.raises(Stopped):
            proposals.search(config, run, [Mistaken(), Stop(3)])
        with pytest.raises(InvalidFileError, match=r"observer 'mistaken' must load .*'b'"):
            proposals.search(config, run, [Mistaken()])


def in_data(supernet: Supernet) -> None:
    supernet.arch["first"].data.add_(1e-3)  # which no version counter notices


def in_place(supernet: Supernet) -> None:
    with torch.no_grad():
        supernet.get_buffer("network.norm.running_mean").mul_(2)


def replace(supernet: Supernet) -> None:
    supernet.arch["first"] = torch.nn.Parameter(supernet.arch["first"].detach().clone())


def add(supernet: Supernet) -> None:
    supernet.register_buffer("extra", torch.zeros(1))


@pytest.mark.parametrize(
    ("act", "changed"),
    [
        (in_data, "'arch.first'"),
        (in_place, "'network.norm.running_mean'"),
        (replace, "'arch.first'"),
        (add, "'extra'"),
        (lambda supernet: supernet.network.eval(), "mode .* of 'network'"),
        (lambda supernet: torch.rand(1), "random state"),
    ],
    ids=["data", "buffer", "replaced", "added", "mode", "random"],
)
def test_an_observer_that_changes_the_run_is_named(
    act: Callable[[Supernet], object], changed: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=rf"'meddler'.*{changed}"):
        run_search(tmp_path / "run", Meddler(act))


def test_looking_is_no_change(tmp_path: Path) -> None:
    """Gradients, a forked random state and not-a-number values of its own."""

    def look(supernet: Supernet) -> dict[str, float]:
        with torch.random.fork_rng(), in_mode(supernet, "eval"):
            loss = supernet(torch.randn(2, 2, 5, 5)).sum()
        torch.autograd.grad(loss, list(supernet.arch.values()))
        return {"loss": math.nan}

    run_search(tmp_path / "run", Meddler(look))
    assert [record["loss"] for record in observed(read_records(tmp_path / "run"), "meddler")] == [None] * 3


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ({"a": torch.ones(())}, "'a' must be a number, got tensor"),
        ({"kind": 1.0}, "got 'kind'"),
        ([1.0], r"mapping of numbers or None, got \[1.0\]"),
    ],
)
def test_anything_but_numbers_by_name_is_refused(returned: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^observer 'meddler'.*{message}"):
        run_search(tmp_path / "run", Meddler(lambda supernet: returned))


def test_state_that_cannot_be_saved_is_named(tmp_path: Path) -> None:
    class Odd(Observer):
        def state_dict(self) -> dict[str, Any]:
            return {"path": Path()}

    with pytest.raises(ConfigError, match=r"'Odd': state_dict: .*Path"):
        run_search(tmp_path / "run", Odd())


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("[{name: mean_nrm}]", "observer 'mean_nrm'.*did you mean 'mean_norm'"),
        ("[mean_norm, {name: mean_norm, scale: 0}]", r"search\.observers\[1\].*scale"),
        ("[{name: mean_norm, scales: 2}]", r"search\.observers\[0\].*scales"),
        ("[mean_norm, mean_norm]", "two observers are named 'mean_norm'"),
        ("[collapse]", "observer 'collapse'"),
        ("[test_no_observer]", r"search\.observers\[0\]: 'test_no_observer' must make a nas\.Observer, got 3"),
    ],
)
def test_an_entry_that_cannot_work_is_refused_before_anything_is_recorded(
    entries: str, message: str, tmp_path: Path
) -> None:
    register("observer", "test_no_observer")(three)
    with pytest.raises(NASError, match=message):
        run_search(tmp_path / "run", overrides=(f"search.observers={entries}",))
    assert read_records(tmp_path / "run") == []


def three() -> int:
    return 3


def test_what_is_no_observer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"instances of nas\.Observer, got <class 'watch\.Stop'>"):
        run_search(tmp_path / "run", Stop)  # type: ignore[arg-type]
