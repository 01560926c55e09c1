"""Whether a search and a retraining fit into memory, how long they take, and what to change if they do not fit."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
from torch import nn

from nas.cost.system_memory import available_memory
from nas.errors import ConfigError, NASError
from nas.files import parse_yaml
from nas.front.running import Source, configured
from nas.run.config import Config, parse_config
from nas.run.plan import Need, Speed, Work, levels_of, needs, resident, speed, splits_of, steps_of
from nas.run.task import TEST, Task
from nas.space.definition import find_space

POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
"""Powers of 1000, or with an `i` of 1024, by the first letter of a unit."""
PARTS = (2, 4, 8, 16, 32)
"""Into how many micro-batches a batch may be divided, in the order in which they are tried."""

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Proposal(NamedTuple):
    """A change that makes a search or a retraining fit."""

    overrides: tuple[str, ...]
    """What to add to the command, `key.path=value` each."""
    effect: str
    """What it changes besides memory and time; empty for an exact change."""
    need: Need

    def __str__(self) -> str:
        return " ".join(map(shlex.quote, self.overrides))


class Planned(NamedTuple):
    """What a search or a retraining takes."""

    need: Need
    fits: bool
    """Whether it needs at most the given memory."""
    steps: int
    """The number of steps."""
    speed: Speed | None = None
    """How long it takes; None if it was not tried."""
    proposals: tuple[Proposal, ...] = ()
    """If it does not fit: the cheapest exact change with which it does, if there is one, then others."""


class Plan(NamedTuple):
    """What a configuration takes."""

    works: Mapping[Work, Planned]
    """By the section of the configuration: `search` and `retrain`, as far as it has them."""
    memory: int
    """Bytes that were to suffice."""

    @property
    def fits(self) -> bool:
        """Whether search and retraining fit."""
        return all(each.fits for each in self.works.values())


def plan(config: Source, *, fit: str | int | None = None, tries: int = 3, task: Task | None = None) -> Plan:
    """Predict the memory and the time of a search and a retraining, before they start.

    Memory is that of the process at its peak, in steps on the CPU. If it suffices, a few steps are taken to measure the
    time. If not, changes are proposed: first one that leaves the search what it is.

    Args:
        config: the configuration; see `nas.load_config`.
        fit: the memory that should suffice, such as `8GiB`, or a number of bytes; by default what is available now.
        tries: number of steps that are timed; 0 for none.
        task: a task in place of that of the configuration.

    Raises:
        ConfigError: the size is none, or the configuration cannot be planned: it is for another device, its network
            cannot run, or a searcher proposes its genotypes.

    Example:
        >>> plan = nas.plan(nas.load_config("digits"), fit="2GiB", tries=0)
        >>> plan.fits, plan.works["search"].steps
        (True, 300)
    """
    memory = available_memory() if fit is None else bytes_of(fit) if isinstance(fit, str) else fit
    loaded = configured(config, task)
    if loaded.device != "cpu":
        raise ConfigError(f"device must be cpu, since memory is predicted for the CPU alone, got '{loaded.device}'")
    if tries < 0:
        raise ConfigError(f"tries must be at least 0, got {tries}")
    works: list[Work] = []
    if loaded.search_section is not None:
        works.append("search")
    if loaded.retrain_section is not None:
        works.append("retrain")
    start = resident()
    data = {work: _Data(loaded, work, task, start) for work in works}
    found = {work: _planned(loaded, data[work], memory) for work in works}
    if tries:  # only now: what a first step loads belongs to the memory that is predicted
        for work in (work for work in works if found[work].fits):
            found[work] = found[work]._replace(speed=speed(loaded, work, data[work].task, tries))
    return Plan(found, memory)


def bytes_of(size: str) -> int:
    """Return the bytes of a size such as `8GiB`, `500MB` or `2G`; raises `ConfigError`."""
    found = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*([kmgt]?)(i?)b?\s*", size, re.IGNORECASE)
    if found is None or float(found[1]) == 0:
        raise ConfigError(f"a size must be a number of bytes with a unit, such as 8GiB or 500MB, got '{size}'")
    unit: int = (1024 if found[3] else 1000) ** POWERS[found[2].lower()]
    return round(float(found[1]) * unit)


class _Data:
    """The task of a search or a retraining with its data, and the bytes of a process that has loaded them.

    Args:
        config: of both.
        work: which of them.
        task: in place of the configured one.
        start: bytes of the process before it loaded any data.
    """

    def __init__(self, config: Config, work: Work, task: Task | None, start: int) -> None:
        self.work, self.given, before = work, task, resident()
        self.task = task or config.build_task(retraining=work == "retrain")
        if work == "retrain":
            self.task.check(TEST)
        for split in splits_of(config, work):
            self.task.batch(split, 0)
        self.base = start + resident() - before
        self._section = self._of(config)

    def needs(self, config: Config) -> Need:
        """What a configuration with the same data takes."""
        other = self._of(config) != self._section
        task = config.build_task(retraining=self.work == "retrain") if other else self.task
        return needs(config, self.work, task, self.base)

    def _of(self, config: Config) -> dict[str, Any]:
        return config.task if self.work == "search" else {**config.task, **config.retrain.task}


def _planned(config: Config, data: _Data, memory: int) -> Planned:
    need = data.needs(config)
    fits = need.memory <= memory
    proposals = () if fits else tuple(_proposals(config, data, memory))
    return Planned(need, fits, steps_of(config, data.work), proposals=proposals)


def _proposals(config: Config, data: _Data, memory: int) -> Iterator[Proposal]:
    """The first exact change that fits, then the first one of each kind that changes what is searched."""
    found: set[str] = set()
    if data.base > memory:  # the data alone are too much
        return
    for changes, effect in _changes(config, data):
        again = "search.memory" in changes and len(changes) > 1  # more than is needed, once an exact change fits
        if effect not in found and not (again and "" in found):
            try:
                need = data.needs(parse_config(parse_yaml(config.dump(), "configuration"), changes))
            except NASError:  # the change does not go with the space or with other parts
                continue
            if need.memory <= memory:
                found.add(effect)
                yield Proposal(tuple(f"{key}={_text(value)}" for key, value in changes.items()), effect, need)


Changes = Mapping[str, Any]


def _changes(config: Config, data: _Data) -> Iterator[tuple[Changes, str]]:
    """Changes with their effects: exact ones by ascending cost, then others."""
    size = None if data.given is not None else getattr(data.task.config, "batch", None)
    parts = list(divided(config, data.work, size)) if isinstance(size, int) else []
    effect = effect_of_division(config, data.work)
    how = config.search_section
    if data.work == "retrain" or how is None:
        yield from ((changes, effect) for changes in parts)
        return
    recomputed: list[Changes] = [{"search.memory": "checkpoint"}] if how.memory == "keep" else []
    both = [{**changes, **again} for changes in parts for again in recomputed]
    if how.evaluation == "plain":
        yield {"search.evaluation": "planned"}, ""
    if not effect:
        yield from ((changes, "") for changes in parts)
    yield from ((changes, "") for changes in recomputed)
    if effect:
        yield from ((changes, effect) for changes in parts)
    yield from ((changes, effect) for changes in both)
    names = [*how.wrappers, {"name": "partial_channels", "k": 4}]
    sampled = {"search.relaxation": "gumbel"}
    for again in ({}, *recomputed):
        yield {"search.wrappers": names, **again}, "each mixed operation computes a quarter of its channels"
        yield {**sampled, **again}, "a step computes one candidate of each decision"


def divided(config: Config, work: Work, size: int) -> Iterator[Changes]:
    """Yield changes by which steps take as many samples as before, as micro-batches.

    Args:
        config: of the search and the retraining.
        work: which of them.
        size: the batch size, the field `batch` of the task's configuration.
    """
    for parts in (parts for parts in PARTS if size % parts == 0):
        accumulated = {name: level.accumulate * parts for name, level in levels_of(config, work).items()}
        if work == "retrain":
            changes: dict[str, Any] = {"retrain.task.batch": size // parts}
            changes |= {f"retrain.stages.{name}.level.accumulate": count for name, count in accumulated.items()}
            if (how := config.retrain.validation) is not None and how.batches:
                changes["retrain.validation.batches"] = how.batches * parts
        else:
            changes = {"task.batch": size // parts}
            changes |= {f"search.levels.{name}.accumulate": count for name, count in accumulated.items()}
            if count := config.search.validation_batches:
                changes["search.validation_batches"] = count * parts
            if config.retrain_section is not None and "batch" not in config.retrain.task:
                changes["retrain.task.batch"] = size
        yield changes


def effect_of_division(config: Config, work: Work) -> str:
    """Return what micro-batches change; nothing if the gradient stays the mean over as many samples."""
    options = config.options if work == "search" else {**config.options, **config.retrain.options}
    levels = levels_of(config, work).values()
    modules = find_space(config.space).describe(**options).network.modules()
    if any(level.mode == "train" for level in levels) and any(isinstance(module, BATCH_NORMS) for module in modules):
        return "batch norms see smaller batches"
    return "the logarithm is taken of the loss of smaller batches" if any(x.scale_free for x in levels) else ""


def _text(value: Any) -> str:
    return str(value) if isinstance(value, int | str) else msgspec.json.encode(value).decode()
