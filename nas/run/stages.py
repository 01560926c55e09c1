"""Searches in stages: between two of them each decision drops its weakest candidates, so that the supernet may grow.

Each stage is a search over the candidates that are left, with options and wrappers of its own: more cells, a stronger
dropout on skip connections, more of the channels. By default it starts from scratch, as in P-DARTS; a stage that
`continues` takes over operation weights, arch parameters, the states of the optimizers and schedules, as in DrNAS.

References:
    Chen et al., Progressive Differentiable Architecture Search, ICCV 2019, sec. 3.2; chenxin061/pdarts,
    `train_search.py`. Chen et al., DrNAS, ICLR 2021, sec. 3.3; xiangning-chen/DrNAS, `DARTS-space/train_search.py`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from msgspec.structs import replace

from nas.derive.candidates import allowed
from nas.errors import ConfigError, SpaceError, UnknownNameError
from nas.genotype.decision import Decision
from nas.registry import entry_name, kind
from nas.run.config import Config, SearchStage
from nas.space.chooser import Kept
from nas.space.definition import SearchSpace, find_space
from nas.supernet import Supernet

WHERE = "search.stages"


@dataclass(frozen=True)
class Stage:
    """A part of a search, as a search of its own."""

    name: str
    """Empty for a search without stages."""
    config: Config
    """Its steps are those of the levels: a stage that continues others has theirs, too."""
    first: int
    """The step of the levels with which it begins: above 0 if it continues another stage."""
    length: int
    """The number of its steps."""
    keep: int | None
    """How many candidates each decision keeps at its end."""
    continues: bool

    def over(self, kept: Kept) -> tuple[Config, SearchSpace]:
        """Return its configuration and its space if these candidates are left: without what concerns no others."""
        space = find_space(self.config.space).restricted(kept)
        if not kept:
            return self.config, space
        how, decisions = self.config.search, space.describe(**self.config.options).decisions
        latency = {
            label: {name: value for name, value in row.items() if name in map(str, decisions[label].candidates)}
            for label, row in how.latency.items()
            if label in decisions
        }
        at_most = {limit: most for limit, most in how.at_most.items() if any(_limited(limit, decisions))}
        return replace(self.config, search_section=replace(how, latency=latency, at_most=at_most)), space


def stages_of(config: Config) -> list[Stage]:
    """Return the stages of a search, in order: one if its configuration states none.

    Raises:
        ConfigError: the stages cannot work: they have other epochs than the search, an option that the space does not
            have, or other decisions than one another; the last stage keeps candidates; the first one continues
            another, or a later one does with other options; a decision would keep none that it may derive.
    """
    how = config.search
    if not how.stages:
        return [Stage("", config, 0, how.steps, None, False)]
    _check(config)
    ends = [math.ceil(epoch * how.steps / how.epochs) for epoch in accumulate(s.epochs for s in how.stages.values())]
    starts = dict(zip(how.stages, [0, *ends], strict=False))
    after = dict(zip(how.stages, ends, strict=True))
    stages: list[Stage] = []
    for chain in _chains(how.stages):
        begin, total = starts[chain[0]], after[chain[-1]] - starts[chain[0]]
        for name in chain:
            stage, first, length = how.stages[name], starts[name] - begin, after[name] - starts[name]
            if length < 1:
                raise ConfigError(f"{WHERE}.{name} must have at least one of search.steps={how.steps}, got none")
            own = _as_search(config, stage, first, length, total)
            stages.append(Stage(name, own, first, length, stage.keep, stage.continues))
    _require_alike(stages, how.at_most)
    return stages


def survivors(supernet: Supernet, keep: int | None) -> Kept:
    """Return the candidates that each decision keeps: those with the largest mixing weights, in their own order.

    `none` is dropped as any other candidate. Of candidates with equal weights the first ones are kept.

    Args:
        supernet: at the end of a stage.
        keep: the number of candidates; None for all.
    """
    kept: dict[str, list[str | int]] = {}
    strengths = supernet.strengths()
    for label in supernet.candidate_logits():
        candidates, values = supernet.decisions[label].candidates, strengths[label].tolist()
        order = sorted(range(len(values)), key=lambda i: -values[i])[: keep or len(values)]
        kept[label] = [candidates[i] for i in sorted(order)]
    return kept


def _as_search(config: Config, stage: SearchStage, first: int, length: int, total: int) -> Config:
    """A stage as a search of `total` steps, of which its own begin at `first`."""
    how = config.search
    shares = {name: stage.warmup.get(name, level.warmup) for name, level in how.levels.items()}
    levels = {
        name: replace(level, warmup=(first + shares[name] * length) / total if shares[name] else 0.0)
        for name, level in how.levels.items()
    }
    wrappers = how.wrappers if stage.wrappers is None else stage.wrappers
    how = replace(how, steps=total, levels=levels, wrappers=wrappers, stages={})
    return replace(config, options={**config.options, **stage.options}, search_section=how)


def _chains(stages: Mapping[str, SearchStage]) -> list[list[str]]:
    """The names of stages that continue one another."""
    chains: list[list[str]] = []
    for name, stage in stages.items():
        if stage.continues:
            chains[-1].append(name)
        else:
            chains.append([name])
    return chains


def _check(config: Config) -> None:
    how = config.search
    for other in ("searcher", "stopping"):
        if getattr(how, other) is not None:
            raise ConfigError(f"{WHERE} must be left out with search.{other}, got both. Remove one")
    for i, entry in enumerate(how.observers):
        if "levels" in inspect.signature(kind("observer").find(entry_name(entry))).parameters:
            found = f"'{entry_name(entry)}', which watches the levels of one"
            raise ConfigError(f"{WHERE} must be left out with search.observers[{i}], got {found}. Remove one")
    if config.start:
        raise ConfigError(f"{WHERE} must be left out with 'start', got both. Remove one")
    if (total := sum(stage.epochs for stage in how.stages.values())) != how.epochs:
        raise ConfigError(f"{WHERE} must have search.epochs={how.epochs} epochs together, got {total}")
    known, names = find_space(config.space).options(), list(how.stages)
    for name, before in zip(names, [None, *names], strict=False):
        stage = how.stages[name]
        for option in stage.options:
            if option not in known:
                what = f"option that can grow, of space '{config.space}'"
                raise UnknownNameError(what, option, known, where=f"{WHERE}.{name}.options")
        for level in stage.warmup:
            if level not in how.levels:
                raise UnknownNameError("level", level, how.levels, where=f"{WHERE}.{name}.warmup")
        if stage.continues and before is None:
            raise ConfigError(f"{WHERE}.{name}.continues must be false in the first stage, got true")
        if stage.continues and before is not None and stage.options != how.stages[before].options:
            raise ConfigError(
                f"{WHERE}.{name}.continues needs the options of the stage before, {how.stages[before].options}, got"
                f" {stage.options}. Set continues: false"
            )
        if stage.continues and any(level.freezing is not None for level in how.levels.values()):
            raise ConfigError(f"{WHERE}.{name}.continues must be false with `freezing` of a level, got true")
    if how.stages[names[-1]].keep is not None:
        raise ConfigError(f"{WHERE}.{names[-1]}.keep must be left out, because no stage follows, got a number")


def _require_alike(stages: Iterable[Stage], at_most: Mapping[str, int]) -> None:
    """Raise `ConfigError` unless the stages have the same decisions, each with enough candidates to keep."""
    first: dict[str, Decision] = {}
    for stage in stages:
        where = f"{WHERE}.{stage.name}"
        try:
            found = find_space(stage.config.space).describe(**stage.config.options).decisions
        except (ConfigError, SpaceError) as error:
            raise type(error)(f"{where}: {error}") from error
        first = first or found
        if other := next((label for label in {**first, **found} if first.get(label) != found.get(label)), None):
            raise ConfigError(f"{where}.options must leave the decisions as in the first stage, got another '{other}'")
        free = _always_left(found, at_most)
        if stage.keep is not None and stage.keep < free:
            raise ConfigError(
                f"{where}.keep must be at least {free}, so that each decision keeps a candidate that is neither `none`"
                f" nor limited by search.at_most, got {stage.keep}"
            )


def _always_left(decisions: Mapping[str, Decision], at_most: Mapping[str, int]) -> int:
    """Of how many candidates one is always among those that every decision may take, whatever the others take."""
    options, needed = allowed(decisions), 1
    for label, decision in decisions.items():
        if decision.kind != "inputs" and options[label]:
            limited = {c for limit in at_most for each, c in _limited(limit, decisions) if each == label}
            barred = limited | {c for i, c in enumerate(decision.candidates) if i not in options[label]}
            needed = max(needed, min(len(barred) + 1, len(decision.candidates)))
    return needed


def _limited(limit: str, decisions: Mapping[str, Decision]) -> Iterable[tuple[str, Any]]:
    """The decisions and the candidate that an entry of `at_most` limits."""
    cell, _, name = limit.rpartition("/")
    for label, decision in decisions.items():
        if decision.kind == "operation" and cell in ("", label.rpartition("/")[0]) and name in decision.candidates:
            yield label, name
