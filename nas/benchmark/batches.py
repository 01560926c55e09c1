"""The inputs on which scores see untrained networks: noise, or a batch of a task."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.benchmark.table import Table
from nas.errors import ConfigError
from nas.genotype.file import Genotype
from nas.run.config import Config
from nas.run.judge import Judge
from nas.searchers.score import Entry, zero_cost


class Batch(Protocol):
    """One batch for all networks of a table."""

    label: str
    """What the inputs are, for tables and files."""
    seed: int
    """Of the initial weights."""
    options: dict[str, Any]
    """Options of the space in place of those of the table."""

    def example(self) -> tuple[Tensor, ...]:
        """Return inputs with batch size 1."""

    def score(self, entry: Entry, genotype: Genotype) -> float:
        """Return the score of a genotype."""


class Noise:
    """Inputs drawn from the standard normal distribution, with random labels.

    The loss is the cross-entropy of the network's class scores `(batch, classes)`.

    Args:
        shape: of the inputs, `(batch, ...)`.
        seed: of inputs, labels and initial weights.
    """

    options: dict[str, Any] = {}  # noqa: RUF012 - the type of the protocol

    def __init__(self, shape: tuple[int, ...], seed: int = 0) -> None:
        self.seed, self.label = seed, f"noise {'x'.join(map(str, shape))}"
        generator = torch.Generator().manual_seed(seed)
        self._inputs = (torch.randn(shape, generator=generator),)
        self._labels = torch.rand(shape[0], generator=generator)

    def example(self) -> tuple[Tensor, ...]:
        """Return the first input."""
        return (self._inputs[0][:1],)

    def score(self, entry: Entry, genotype: Genotype) -> float:
        """Return the score of a genotype; raises as `zero_cost`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return zero_cost(entry, genotype, self._inputs, self._loss, seed=self.seed)

    def _loss(self, network: nn.Module) -> Tensor:
        scores = network(*self._inputs)
        if not isinstance(scores, Tensor) or scores.dim() != 2:
            found = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise ConfigError(
                f"a loss on noise needs class scores (batch, classes), got {found}. Give a configuration with a task"
            )
        return F.cross_entropy(scores, (self._labels * scores.shape[1]).long())


class TaskBatch:
    """The first batch of the lowest level of a search.

    Args:
        config: of the search, with the task; its options of the space replace those of the table.
        label: what the inputs are.
        table: whose networks are scored.

    Raises:
        ConfigError: the configuration is of another space.
    """

    def __init__(self, config: Config, label: str, table: Table) -> None:
        if config.space != table.space:
            raise ConfigError(f"the configuration must be of space '{table.space}', got '{config.space}'")
        self.seed, self.label, self.options = config.seed, label, dict(config.options)
        self._config, self._task = config, config.build_task()
        self._judges: dict[str, Judge] = {}

    def example(self) -> tuple[Tensor, ...]:
        """Return the example of the task."""
        return self._task.example()

    def score(self, entry: Entry, genotype: Genotype) -> float:
        """Return the score of a genotype; raises as `Judge.score`."""
        judge = self._judges.get(repr(entry)) or Judge(self._config, entry, task=self._task)
        self._judges[repr(entry)] = judge
        return judge.score(genotype)
