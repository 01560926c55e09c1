"""The searcher `optuna`: proposals by a sampler of Optuna, in one process or in several on one storage."""

from __future__ import annotations

import getpass
import hashlib
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.derive.candidates import existing
from nas.errors import ConfigError
from nas.genotype.decision import Choice
from nas.registry import Count
from nas.searchers.leases import Lease, Leases
from nas.searchers.searcher import Searcher, shown
from nas.searchers.storage import open_storage, open_study, storing
from nas.searchers.variation import Choices
from nas.space.definition import Description

Sampler = Literal["tpe", "nsga2"]
SPACE = "space"
"""The attribute of a study that holds the space and its options."""


class OptunaSearch(Searcher):
    """Each decision is a categorical parameter of a trial; those that do not exist are absent from it.

    With a storage, all processes that name it learn from the trials of one another: each proposes and scores its own,
    and those of processes that were lost (see `nas.searchers.leases.Leases`).

    Args:
        description: the decisions of the space.
        sampler: `tpe` (tree-structured Parzen estimator) or `nsga2` (a genetic algorithm).
        population: of `nsga2`.
        storage: `journal:FILE`, or the URL of a database; by default in memory.
        study: the name of the study in the storage.
        seed: of the course.

    Raises:
        ConfigError: the storage cannot be used, or its study is of another space.

    References:
        Akiba et al., "Optuna", KDD 2019. Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011.
        Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", IEEE TEC 2002.
    """

    settings = ("sampler", "population", "study_name")
    state = ("told",)

    def __init__(
        self,
        description: Description,
        *,
        sampler: Sampler = "tpe",
        population: Count = 50,
        storage: str = "",
        study: str = "nas",
        seed: int = 0,
    ) -> None:
        super().__init__(description, seed=seed)
        self.sampler, self.population, self.study_name, self.storage = sampler, population, study, storage
        self.told: list[dict[str, Any]] = []
        """The trials that have ended, if there is no storage that has them."""
        self._open: list[tuple[Choices, optuna.Trial, Lease | None]] = []
        self._leases: Leases | None = None
        self._study = self._made()

    @property
    def number(self) -> int:
        return self._open[-1][1].number + 1 if self.storage else self.asked

    def propose(self, random: Random) -> Choices:
        with storing(self.storage):
            lease = None if self._leases is None else self._leases.take(sys.maxsize)
            trial = self._study.ask() if lease is None else optuna.Trial(self._study, lease.trial_id)
            choices: Choices = {}
            for label, _ in existing(self.description.decisions, choices):
                every = self.variation.every(label)
                names = [_name(choice) for choice in every]
                choices[label] = every[names.index(trial.suggest_categorical(label, names))]
        self._open.append((choices, trial, lease))
        return choices

    def learn(self, choices: Choices, score: float) -> None:
        place = next((i for i, (proposed, *_) in enumerate(self._open) if proposed == choices), None)
        if place is None:
            expected = "a genotype that it proposed, once for each proposal"
            raise ConfigError(f"searcher 'optuna' must be told {expected}, got {shown(choices)}")
        _, trial, lease = self._open.pop(place)
        with storing(self.storage):
            frozen = self._study.tell(trial, score, skip_if_finished=True)  # by another process, if this one was halted
        if lease is None:
            self.told.append({"params": frozen.params, "score": score, "attributes": _plain(frozen.system_attrs)})
        else:
            lease.close()

    def close(self) -> None:
        for *_, lease in self._open:
            if lease is not None:
                lease.close()
        self._open = []

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        if self.storage:  # which has the trials
            return
        self._study = self._made()
        names = {label: [_name(each) for each in self.variation.every(label)] for label in self.variation.options}
        for each in self.told:
            distributions: dict[str, BaseDistribution] = {
                label: CategoricalDistribution(names[label]) for label in each["params"]
            }
            self._study.add_trial(
                create_trial(
                    params=each["params"],
                    distributions=distributions,
                    value=each["score"],
                    system_attrs=each["attributes"],
                )
            )

    def _made(self) -> Study:
        """A new study, or that of the storage."""
        with storing(self.storage):
            storage = open_storage(self.storage) if self.storage else None
            study = open_study(
                storage=storage,
                study_name=self.study_name,
                direction="maximize",
                sampler=_Numbered(self._sampler, self.seed),
            )
            mine = {"name": self.description.space.name, "options": self.description.options}
            if (other := study.user_attrs.get(SPACE, mine)) != mine:
                raise ConfigError(
                    f"study '{self.study_name}' must be of space '{mine['name']}' with equal options, got that of"
                    f" '{other['name']}'. Use another study"
                )
            study.set_user_attr(SPACE, mine)
        if storage is not None:
            digest = hashlib.sha256(f"{self.storage} {self.study_name}".encode()).hexdigest()[:16]
            locks = Path(tempfile.gettempdir()) / f"nas-{getpass.getuser()}" / digest
            self._leases = Leases(study, storage, locks)
        return study

    def _sampler(self, seed: int) -> BaseSampler:
        if self.sampler == "tpe":
            return TPESampler(seed=seed)
        return _Ordered(population_size=self.population, seed=seed)


class _Ordered(NSGAIISampler):
    """NSGA-II whose parents are in the order of their numbers. Optuna ranks them for the first child of a generation
    alone, so that a study that is loaded within a generation would draw another child."""

    def select_parent(self, study: Study, generation: int) -> list[FrozenTrial]:
        return sorted(super().select_parent(study, generation), key=lambda trial: trial.number)


class _Numbered(BaseSampler):
    """A sampler whose random numbers depend on the seed and the number of the trial alone: nothing to resume."""

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make, self._seed = make, seed
        self._sampler = make(seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._sampler = self._make((self._seed * 1_000_003 + trial.number) % 2**32)
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        self._sampler.after_trial(study, trial, state, values)


def _name(choice: Choice) -> str:
    """A choice as a value that storages keep."""
    return ",".join(map(str, choice)) if isinstance(choice, tuple) else str(choice)


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes that a later generation reads, in plain data."""
    return {name: value for name, value in attributes.items() if isinstance(value, int | float | str | list)}
