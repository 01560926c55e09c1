"""Observers: what watches a run, such as a progress bar, the collapse indicators, or a measurement of your own."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nas.errors import ConfigError
from nas.genotype.file import Genotype
from nas.kernels.evaluation import copied
from nas.kernels.finite import equal
from nas.multilevel.multilevel import Moved
from nas.registry import entry_name, kind
from nas.run import checkpoint
from nas.run.folder import Record

OBSERVER = "observer"
"""The kind of the records that hold what observers return; their field `observer` names it."""

RESERVED = ("step", "kind", "level", "observer")
"""Fields of these records that no returned value can have."""

RunKind = Literal["search", "retrain"]


@dataclass(frozen=True)
class Start:
    """What an observer learns of a run before its first step."""

    kind: RunKind
    folder: Path
    """The run folder; its files are complete up to the last step."""
    network: Any
    """The supernet of a search, the derived network of a retraining; trained in place."""
    step: int
    """Steps that are done already: above 0 if the run resumes."""
    steps: int
    """Steps of the whole run."""


class Observer:
    """Base class of everything that watches a run. Override the methods you need; the others do nothing.

    A run calls all observers in one order: its own (`collapse`, `logits` and `validation` in a search), those of
    `search.observers`, then those given in Python. An observer must leave the network's parameters, buffers and modes
    and torch's random state as they are; the run checks this after every `on_epoch`.

    Arguments of a registered class come from its entry in `search.observers`. It may also take the arguments `task`,
    `description` (of the space) and `levels` (the `Multilevel` of the search).

    Example:
        >>> @nas.register("observer", "arch_norm")
        ... class ArchNorm(nas.Observer):
        ...     def on_epoch(self, step, supernet, genotype):
        ...         return {"norm": sum(logits.norm().item() for logits in supernet.arch.values())}
    """

    name: str = ""
    """The name in records and messages: the name in `search.observers`, else by default that of the class."""

    def on_start(self, start: Start) -> None:
        """Called before the first step of this process, also if the run resumes."""

    def on_step(self, step: int, moved: Mapping[str, Moved], /) -> None:
        """Called after each step.

        Args:
            step: steps done, over all stages.
            moved: what each level did that was due, by its name; in a retraining the stage.
        """

    def on_epoch(self, step: int, network: Any, genotype: Genotype, /) -> Mapping[str, float] | None:
        """Called at the end of each epoch.

        Args:
            step: steps done, over all stages.
            network: the supernet of a search, the derived network of a retraining.
            genotype: the genotype that the search derives at this epoch, or that is retrained.

        Returns:
            Numbers by name, or None. The run records them and the report draws them.
        """
        return None

    def on_stage(self, start: Start) -> None:
        """Called when a stage of a search begins after another, with a supernet of its own: `start.network`.

        A run that resumes within a stage calls `on_start` alone.
        """

    def on_end(self) -> None:
        """Called when the run ends in this process, for whatever reason, if `on_start` returned."""

    def state_dict(self) -> dict[str, Any]:
        """State for the checkpoint: numbers, texts, tensors, and lists and mappings of these."""
        return {}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Restore what `state_dict` returned; called before `on_start` if the run resumes."""


def configured(entries: Iterable[str | Mapping[str, Any]], **given: Any) -> list[Observer]:
    """Create the observers of `search.observers`.

    Args:
        entries: of the configuration: names, or mappings of `name` and arguments.
        given: arguments that an observer may take besides those of its entry.

    Raises:
        UnknownNameError: of a name.
        ConfigError: of an argument, or if an entry does not make an observer.
    """
    found = []
    for i, entry in enumerate(entries):
        where = f"search.observers[{i}]"
        observer = kind("observer").create(entry, where, **given)
        name = entry_name(entry)
        if not isinstance(observer, Observer):
            raise ConfigError(f"{where}: '{name}' must make a nas.Observer, got {observer!r}")
        observer.name = name
        found.append(observer)
    return found


def observed(records: Iterable[Record], name: str) -> list[Record]:
    """The records of the observer of this name, epoch by epoch."""
    return [record for record in records if record.get("kind") == OBSERVER and record.get("observer") == name]


class Observers:
    """The observers of one run, by name.

    Args:
        observers: in the order in which they are called.

    Raises:
        ConfigError: an object is no observer, or two have the same name.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._by_name: dict[str, Observer] = {}
        for observer in observers:
            if not isinstance(observer, Observer):
                raise ConfigError(f"observers must be instances of nas.Observer, got {observer!r}")
            name = observer.name or type(observer).__name__
            if name in self._by_name:
                raise ConfigError(f"two observers are named '{name}'; names must be unique")
            self._by_name[name] = observer
        self._started: list[Observer] = []

    def start(self, start: Start) -> None:
        for observer in self._by_name.values():
            observer.on_start(start)
            self._started.append(observer)

    def stage(self, start: Start) -> None:
        for observer in self._by_name.values():
            observer.on_stage(start)

    def end(self) -> None:
        while self._started:
            self._started.pop().on_end()

    def step(self, step: int, moved: Mapping[str, Moved]) -> None:
        for observer in self._by_name.values():
            observer.on_step(step, moved)

    def epoch(self, step: int, network: nn.Module, genotype: Genotype) -> Iterable[tuple[str, dict[str, float]]]:
        """Call the observers one by one; yields the name of each that returns numbers, and these.

        Raises `ConfigError` that names an observer that changed the run or returned something else.
        """
        before = _Snapshot(network)
        for name, observer in self._by_name.items():
            values = observer.on_epoch(step, network, genotype)
            if (changed := before.changed()) is not None:
                raise ConfigError(
                    f"observer '{name}' must leave the run as it is, but its on_epoch changed {changed}. Use"
                    " a copy (copy.deepcopy(network)) in eval mode, and draw random numbers from a torch.Generator or"
                    " in torch.random.fork_rng()"
                )
            if values:
                yield name, _checked(name, values)

    def state_dict(self) -> dict[str, Any]:
        states = {name: observer.state_dict() for name, observer in self._by_name.items()}
        for name, state in states.items():
            try:
                checkpoint.require_plain(state)
            except TypeError as error:
                raise ConfigError(f"observer '{name}': state_dict: {error}") from error
        return {name: state for name, state in states.items() if state}

    def load_state_dict(self, states: Mapping[str, Any], path: Path) -> None:
        for name, state in states.items():
            if name in self._by_name:
                with checkpoint.restoring(path, f"observer '{name}'"):
                    self._by_name[name].load_state_dict(state)
            else:
                warnings.warn(
                    f"observer '{name}' has state in the checkpoint, but this process does not have it; its state is"
                    " dropped. Resume with the same observers",
                    stacklevel=2,
                )


class _Snapshot:
    """What an observer must not change: values and modes of a network, and the random state.

    Values are compared, not version counters: these do not count what is changed through `.data`.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._tensors = _tensors(network)
        self._values = copied(self._tensors)
        self._modes = _modes(network)
        self._random = checkpoint.random_state()

    def changed(self) -> str | None:
        """Name what is different now; None if nothing is."""
        now = _tensors(self._network)
        for name in {**self._tensors, **now}:
            if now.get(name) is not self._tensors.get(name) or not equal(now[name], self._values[name]):
                return f"the parameter or buffer '{name}'"
        modes = _modes(self._network)
        for name in {**self._modes, **modes}:
            if modes.get(name) != self._modes.get(name):
                return f"the mode (train or eval) of '{name}'" if name else "the mode (train or eval) of the network"
        return None if _same(self._random, checkpoint.random_state()) else "torch's random state"


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    return dict(itertools.chain(network.named_parameters(), network.named_buffers()))


def _modes(network: nn.Module) -> dict[str, bool]:
    return {name: module.training for name, module in network.named_modules()}


def _same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two random states are equal."""
    pairs = zip([a["cpu"], *a.get("cuda", [])], [b["cpu"], *b.get("cuda", [])], strict=True)
    return all(torch.equal(ours, theirs) for ours, theirs in pairs)


def _checked(name: str, values: object) -> dict[str, float]:
    if not isinstance(values, Mapping):
        raise ConfigError(f"observer '{name}': on_epoch must return a mapping of numbers or None, got {values!r}")
    for key, value in values.items():
        if not isinstance(key, str) or key in RESERVED:
            raise ConfigError(f"observer '{name}': names of values must be texts other than {RESERVED}, got {key!r}")
        if not isinstance(value, int | float):
            raise ConfigError(f"observer '{name}': '{key}' must be a number, got {value!r}; write value.item()")
    return dict(values)
