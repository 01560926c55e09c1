"""Scores of genotypes in a task: what a score receives, made of a configuration."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from msgspec.structs import replace
from torch import Tensor, nn

from nas.errors import ConfigError, DivergedError
from nas.genotype.file import Genotype
from nas.kernels.device import placed
from nas.multilevel.level import Level
from nas.run import searching
from nas.run.config import Config
from nas.run.held_out import Splits, begun, train_and_score
from nas.run.task import Task
from nas.run.validation import mean_metrics, sign
from nas.searchers.score import Entry, cost_of, find_score, judged, name_of, needs
from nas.space.definition import find_space
from nas.supernet import Supernet

EVALUATIONS, SUPERNET = "evaluations", "supernet"
"""Folders inside that of a search: of the retrained networks, and of the supernet that gives one-shot scores."""
UNIFORM = "uniform_path"


class Judge:
    """Scores genotypes of a configuration's space, in its task.

    Args:
        config: of the search.
        entry: the score: a name, a mapping of `name` and arguments, or a function.
        task: in place of the configured one.
        folder: of the search, for retrainings and the supernet; without it only scores that train nothing work.
        stop: whether to end after the step at hand, by `KeyboardInterrupt` (see `Run.stop`).

    Raises:
        UnknownNameError: no score has this name.
        ConfigError: an argument of the score does not fit, or the data that train and those that score overlap.
    """

    def __init__(
        self,
        config: Config,
        entry: Entry,
        *,
        task: Task | None = None,
        folder: Path | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.config, self.given, self.folder, self.stop = config, task, folder, stop
        self._score = find_score(entry, "search.score")
        self.name = name_of(entry)
        if needs(self._score, "retrained"):
            config.retrain  # noqa: B018 - raises if the section is missing
            splits = Splits(self._score.keywords.get("train", "train"), self._score.keywords.get("split", "val"))
            splits.check(self._retraining_task, "search.score", "the arguments train and split of the score")

    @functools.cached_property
    def task(self) -> Task:
        """The task of the search."""
        return self.given or self.config.build_task()

    @functools.cached_property
    def _retraining_task(self) -> Task:
        return self.given or self.config.build_task(retraining=True)

    def score(self, genotype: Genotype, number: int = 0) -> float:
        """Return the score of a genotype; larger is better. Equal genotypes have equal scores.

        Args:
            genotype: of the space.
            number: names the folder of its retraining.

        Raises:
            ConfigError: the score needs what is not at hand, or is not a finite number.
            DivergedError: a training diverged, or the task's score of its network is not finite.
        """
        given: dict[str, Callable[[], Any]] = {
            "genotype": lambda: genotype,
            "network": lambda: self._network(genotype),
            "inputs": lambda: self._inputs(genotype),
            "cost": lambda: cost_of(genotype, self.task.example),
            "example": lambda: placed(self.task.example(), self.config.torch_device()),
            "loss": lambda: self._loss,
            "shared": lambda: functools.partial(self._shared, genotype),
        }
        if self.folder is not None:
            given["retrained"] = lambda: functools.partial(self._retrained, genotype, number)
        with torch.random.fork_rng():
            torch.manual_seed(self.config.seed)
            return judged(self._score, self.name, genotype, given)

    def _network(self, genotype: Genotype) -> nn.Module:
        network = find_space(genotype.space).derived(genotype, seed=self.config.seed)
        return network.to(self.config.torch_device()).train()

    @functools.cache  # noqa: B019 - a judge lives as long as its search
    def _batch(self, split: str) -> Any:
        return placed(self.task.batch(split, 0), self.config.torch_device())

    def _loss(self, network: nn.Module, level: Level | None = None) -> Tensor:
        """The loss of a level on its first batch; by default of the lowest level."""
        level = level or next(iter(self.config.search.levels.values()))
        loss: Tensor = self.task.losses[level.loss](network, self._batch(level.split))
        return loss

    def _inputs(self, genotype: Genotype) -> tuple[Tensor, ...]:
        """What the network receives by the first loss that calls it."""
        network, seen = self._network(genotype), list[tuple[Any, ...]]()
        hook = network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
        try:
            with torch.no_grad():
                for level in self.config.search.levels.values():
                    self._loss(network, level)
                    if seen and seen[0]:
                        return tuple(seen[0])
        finally:
            hook.remove()
        raise ConfigError(f"score '{self.name}' needs a loss that calls the network with its inputs, got none")

    def _retrained(self, genotype: Genotype, number: int, train: str, split: str) -> float:
        """The score of the task after a retraining in a folder of its own."""
        assert self.folder is not None
        folder = self.folder / EVALUATIONS / f"{number:04d}"
        splits = Splits(train, split)
        metrics = train_and_score(self.config, genotype, folder, splits, stop=self.stop, task=self.given)
        return self._ranked(metrics)

    def _shared(self, genotype: Genotype, folder: str, split: str, batches: int) -> float:
        """The score of the task of a supernet fixed to the genotype."""
        config, supernet = self._supernet(folder)
        device = next(supernet.parameters()).device

        def scored(network: nn.Module) -> dict[str, float]:
            data = (placed(self.task.batch(split, index), device) for index in range(batches))
            return mean_metrics(network, self.task.measure, data)

        if not self.task.has("measure"):
            raise ConfigError(f"score '{self.name}' needs a task with a method measure, got {type(self.task).__name__}")
        return self._ranked(searching.shared_metrics(config, supernet, self.task, genotype, scored, batches))

    @functools.cache  # noqa: B019 - a judge lives as long as its search
    def _supernet(self, folder: str) -> tuple[Config, Supernet]:
        """The supernet of a finished search, or one that is trained now."""
        if folder:
            config, supernet, _ = searching.searched(Path(folder))
        elif self.folder is None:
            raise ConfigError(f"score '{self.name}' needs the folder of a trained supernet, got none. Give `supernet`")
        else:
            config = self._training()
            with begun(self.folder / SUPERNET, config, self.stop) as run:
                searching.search(config, run, task=self.given)
            config, supernet, _ = searching.searched(self.folder / SUPERNET)
        return config, supernet.to(self.config.torch_device())

    def _training(self) -> Config:
        """The configuration that trains a supernet: on uniformly drawn paths, without levels of logits."""
        how = self.config.search
        levels = searching.weight_levels(self.config, find_space(self.config.space).describe(**self.config.options))
        how = replace(
            how,
            levels=levels,
            relaxation=how.relaxation if name_of(how.relaxation) == UNIFORM else UNIFORM,
            searcher=None,
            score=None,
        )
        return replace(self.config, search_section=how)

    def _ranked(self, metrics: Mapping[str, float]) -> float:
        """The score of the task, with the sign by which larger is better."""
        value = sign(self.task) * metrics[self.task.score]
        if not math.isfinite(value):
            raise DivergedError(f"the score {self.task.score} must be finite, got {value}")
        return value
