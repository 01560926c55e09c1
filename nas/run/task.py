"""Tasks: the data, losses and metrics of a search, and the use of its networks."""

from __future__ import annotations

import abc
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import msgspec
from torch import Tensor, nn

from nas.errors import ConfigError, nearest
from nas.registry import kind, origin

if TYPE_CHECKING:
    from nas.run.scoring import Files, Scoring

TEST = "test"
"""The split that `Task.evaluate` scores by default."""
PYTHON = "python"
"""The name that a configuration has for a task that was given as an object, not by name."""

Loss = Callable[..., Tensor]
"""(network, batch) to a scalar. A loss that has a parameter `progress` is given the share in [0, 1) of the run's steps
that are done as a keyword argument; it needs a default, since a loss is also measured outside of runs."""
Best = Literal["max", "min"]
"""Whether the largest or the smallest value of a metric is the best."""


class Preview(NamedTuple):
    """Output of a network on one input, for reports."""

    title: str
    layers: Mapping[str, Tensor]
    """Frames (frames, 3, height, width) uint8 by name, all of one shape: first the input, then the output, then what to
    compare it with, such as the truth."""
    frame_rate: float = 12.5
    """Frames per second."""


class NoSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings of a task that has none."""


class Task(abc.ABC):
    """What a search or a retraining needs to know besides the network: base class of every task.

    A task registered by name is made from its section of the configuration: `cls(config, seed=seed)`, with `config` an
    instance of its `Config`. `nas.task_of` makes a task from datasets without a class.

    Args:
        config: the settings; by default those of `Config()`.
        seed: of all that is random in the task.

    Example:
        >>> @nas.register("task", "parity")
        ... class Parity(nas.Task):
        ...     score, metrics = "accuracy", {"accuracy": "max"}
        ...     losses = {"hinge": lambda network, batch: ((1 - network(batch[0]) * batch[1]).relu().mean())}
        ...     def batch(self, split, index):
        ...         generator = torch.Generator().manual_seed(1000 * index + len(split) + self.seed)
        ...         x = torch.randint(2, (16, 4), generator=generator).float()
        ...         return x, 2 * (x.sum(1, keepdim=True) % 2) - 1
        ...     def example(self):
        ...         return (torch.zeros(1, 4),)
        ...     def evaluate(self, network, split="test"):
        ...         x, sign = self.batch(split, 0)
        ...         return {"accuracy": (network(x).sign() == sign).float().mean().item()}
        >>> Parity().batch("train", 0)[0].shape
        torch.Size([16, 4])
    """

    Config: ClassVar[type] = NoSettings
    """A msgspec struct: the fields of the `task` section of a configuration besides `name`."""
    config: Any
    """The settings, an instance of `Config`."""
    losses: Mapping[str, Loss]
    """Losses by name: (network, batch) to a scalar. The network may be a supernet."""
    score: str
    """The metric that ranks networks."""
    metrics: Mapping[str, Best]
    """For the score, and any other metric that ranks: whether the largest (`max`) or smallest (`min`) value is best."""
    statement: str = ""
    """How `evaluate` takes its metrics, in words, a line each; reports show it below them."""
    threaded: ClassVar[bool] = False
    """Whether runs may call `batch` in a thread, beside a step and `evaluate`: it neither reads nor changes a global
    random state, nor anything that another method changes. Runs then make batches one step ahead."""
    parts: Mapping[str, Mapping[str, float]] = MappingProxyType({})
    """Metrics of each part of the data, by its name, from the last call of `evaluate`."""
    default_model: ClassVar[str] = ""
    """The model that `nas predict` uses if none is named (see `nas.run.models`)."""

    def __init__(self, config: Any = None, *, seed: int = 0) -> None:
        self.config = type(self).Config() if config is None else config
        self.seed = seed

    @abc.abstractmethod
    def batch(self, split: str, index: int) -> Any:
        """Return batch number `index` of a split: a pure function of both and of the seed, so that runs resume exactly.

        Raises:
            ConfigError: no split has this name (or `UnknownNameError`).
        """

    @abc.abstractmethod
    def example(self) -> tuple[Tensor, ...]:
        """Return the inputs of one forward pass of batch size 1."""

    @abc.abstractmethod
    def evaluate(self, network: nn.Module, split: str = TEST) -> dict[str, float]:
        """Return the metrics of a network, among them the score.

        The network is in eval mode, without gradients.

        Args:
            network: a derived network or a supernet.
            split: `test`, data that neither search nor retraining reads, or another split, without augmentation.
        """

    def check(self, split: str = TEST) -> None:  # noqa: B027 - may be left as it is
        """Raise, before a training starts, if `evaluate` on this split would fail at its end; passes by default."""

    def members(self, split: str) -> Collection[Any]:
        """Return what a split consists of (names or numbers), so that overlaps are detected; empty if unknown."""
        return ()

    def measure(self, network: nn.Module, batch: Any) -> dict[str, float]:
        """Return metrics of one batch, among them the score; called as `evaluate`.

        A search scores its supernet by it at each epoch. Without this method it keeps no `best.yaml`.
        """
        raise NotImplementedError

    def previews(self, network: nn.Module) -> Sequence[Preview]:
        """Return a few previews for reports; called as `evaluate`. By default none."""
        return ()

    def predict(self, network: nn.Module, source: Path, sink: Path, *_: Any, **options: Any) -> dict[str, Any]:
        """Apply the network to a user's file or folder `source`, write `sink`, return facts worth printing.

        A subclass may name any keyword arguments. Those named `progress` (a function to call with (done, total)),
        `tile` and `bfloat16` come from the command; the user gives all others as `name=value`, converted by their
        annotations (see `nas.run.prediction.predict`).
        """
        raise NotImplementedError

    @classmethod
    def score_files(cls, files: Files, *_: Any, **options: Any) -> Scoring:
        """Score what methods wrote, and what networks write, against the truth (see `nas.run.scoring`).

        A subclass may name any keyword arguments. `progress`, a function to call with (done, total), comes from the
        command; the user gives all others as `name=value`, converted by their annotations.
        """
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """Return plain data that identifies a task given as an object: a run resumes only if they are equal."""
        return {"class": origin(type(self)), "config": msgspec.to_builtins(self.config), "seed": self.seed}

    def has(self, method: str) -> bool:
        """Whether the class of the task defines an optional method, such as `measure`."""
        return getattr(type(self), method) is not getattr(Task, method)


def require_ranked(task: Task, where: str = "task") -> None:
    """Raise `ConfigError` unless the task says of its score whether larger is better."""
    for metric, best in task.metrics.items():
        if best not in ("max", "min"):
            raise ConfigError(f"{where}: metrics['{metric}'] must be 'max' or 'min', got {best!r}")
    if task.score not in task.metrics:
        raise ConfigError(
            f"{where}: metrics must have the score '{task.score}'{nearest(task.score, task.metrics)}, got"
            f" {', '.join(task.metrics) or 'none'}. Say 'max' if larger is better, else 'min'"
        )


TASKS = kind("task")
TASKS.expected = "a class that inherits nas.Task"
TASKS.accepts = lambda value: isinstance(value, type) and issubclass(value, Task)
