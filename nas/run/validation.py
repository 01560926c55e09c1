"""Validation scores of a run: the metrics of its network at each epoch, and what was best: a genotype, or weights."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nas.distributed.ranks import each
from nas.files import remove
from nas.genotype.file import Genotype
from nas.kernels.evaluation import in_mode
from nas.run import checkpoint
from nas.run.folder import BEST, BEST_WEIGHTS, Record
from nas.run.observer import Observer, Start, observed
from nas.run.task import Task

VALIDATION = "validation"
"""The name of the observer."""
BEST_EPOCH = "best_epoch"
"""The field of its records that holds the step of the best epoch so far; absent before the first finite score."""


Score = Callable[[nn.Module], dict[str, float]]
"""The validation metrics of a network."""


class Validation(Observer):
    """Scores a supernet on the same validation batches at each epoch; keeps the best genotype as `best.yaml`.

    In a search in stages that is the best one of the last stage so far.

    Args:
        score: the validation metrics of a network.
        task: its score ranks epochs.
    """

    name = VALIDATION

    def __init__(self, score: Score, task: Task) -> None:
        self._score, self._metric, self._sign = score, task.score, sign(task)
        self._best: tuple[float, int] | None = None
        """The best score so far, negative if smaller is better, and its step."""

    def on_start(self, start: Start) -> None:
        self._folder: Path = start.folder

    def on_stage(self, start: Start) -> None:
        self._best = None  # scores of another supernet do not compare

    def on_epoch(self, step: int, supernet: nn.Module, genotype: Genotype, /) -> dict[str, float]:
        metrics = self._score(supernet)
        score = self._sign * metrics[self._metric]
        if math.isfinite(score) and (self._best is None or score > self._best[0]):
            self._best = score, step
            self.keep(supernet, genotype)
        # The score comes first: progress shows it alone.
        return {self._metric: 0.0} | metrics | ({BEST_EPOCH: self._best[1]} if self._best else {})

    def keep(self, network: nn.Module, genotype: Genotype) -> None:
        """Keep the best epoch so far."""
        genotype.save(self._folder / BEST)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        self._best = state["best"]


class WeightValidation(Validation):
    """Scores a network in training at each epoch; keeps its best weights as `checkpoints/best.safetensors`.

    Args:
        score: the validation metrics of a network.
        task: its score ranks epochs.
    """

    def __init__(self, score: Score, task: Task) -> None:
        super().__init__(score, task)
        self.weights: dict[str, Tensor] = {}
        """The weights of the best epoch so far; empty before the first finite score."""

    def on_start(self, start: Start) -> None:
        super().on_start(start)
        if self.weights:
            self._write()
        else:  # a run that was killed between the file and its checkpoint, and resumes before
            remove(self._folder / BEST_WEIGHTS)

    def keep(self, network: nn.Module, genotype: Genotype) -> None:
        self.weights = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        self._write()

    def _write(self) -> None:
        checkpoint.save_weights(self._folder / BEST_WEIGHTS, self.weights)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        super().load_state_dict(state)
        self.weights = state["weights"]


def sign(task: Task) -> int:
    """The factor by which a larger score of a task is better: 1, or -1 if smaller is better."""
    return 1 if task.metrics[task.score] == "max" else -1


def mean_metrics(
    network: nn.Module, measure: Callable[[nn.Module, Any], Mapping[str, float]], batches: Iterable[Any]
) -> dict[str, float]:
    """The means over batches of a task's metrics of a network, in eval mode and without gradients.

    If there are several ranks, each measures some of the batches.
    """
    with in_mode(network, "eval"), torch.no_grad():
        rows = each(functools.partial(_measured, network, measure), batches)
    return {name: statistics.fmean(row[name] for row in rows) for name in rows[0]}


def _measured(
    network: nn.Module, measure: Callable[[nn.Module, Any], Mapping[str, float]], batch: Any
) -> dict[str, float]:
    return {name: float(value) for name, value in measure(network, batch).items()}


def best_epoch(records: Iterable[Record]) -> int | None:
    """Return the step of the epoch with the best validation score, the first of equal ones; None without scores."""
    scored = observed(records, VALIDATION)
    return scored[-1].get(BEST_EPOCH) if scored else None
