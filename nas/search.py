"""The search: train a supernet level by level, record what it would derive, and export a genotype."""

from __future__ import annotations

import os
import statistics
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from msgspec.structs import replace
from torch import nn

from nas import checkpoint
from nas.config import Config, load_config
from nas.cost import Cost, costs
from nas.draw import save as save_picture
from nas.errors import ConfigError, DivergedError, InvalidFileError, SpaceError
from nas.genotype import Genotype, Provenance
from nas.inheritance import check_inheritance
from nas.latency import tabulated
from nas.levels import Level
from nas.multilevel import Moved, Multilevel
from nas.observe import INDICATORS, VALIDATION, Observer, advice, best_epoch
from nas.probing import in_mode
from nas.run import (
    BEST,
    CONFIG,
    LAST,
    ORIGIN,
    Run,
    config_hash,
    package_version,
    read_genotypes,
    read_records,
    read_state,
)
from nas.space import Description, find_space
from nas.supernet import Supernet
from nas.task import Task
from nas.undecided import judged

OnStep = Callable[[int, dict[str, Moved], Supernet], None]
"""Called where the search begins and after each of its steps: (steps done, what each level did, the supernet)."""

OnEpoch = Callable[[int, list[str]], None]
"""Called after each epoch: (steps done, what the collapse indicators advise)."""


def search(config: Config, run: Run, on_step: OnStep | None = None, on_epoch: OnEpoch | None = None) -> Genotype:
    """Search in the configured space; goes on from the run's last checkpoint where there is one.

    Equal configurations give equal genotypes, and a run that was killed and resumed equals the uninterrupted one, bit
    for bit on one machine. The run folder receives metrics, checkpoints, the genotype and picture of each epoch,
    `genotype.yaml`, and `best.yaml`: the genotype of the epoch whose supernet scored best on validation batches.

    Before anything is recorded raises `ConfigError` where the configuration cannot work, and `SpaceError` where derived
    networks could not inherit the weights of narrow widths; then `DivergedError`, once the last state is saved, where
    the losses stop being finite.
    """
    task = config.build_task()
    description = _describe(config)
    cost = costs(description)
    supernet = build_supernet(replace(config, initial={}) if config.start else config)
    steps = config.search.steps
    levels = build_levels(config, supernet, task)
    observe = _observer(config, task, description, levels)
    measure = _validation(config, task, levels)

    epochs: dict[int, Genotype] = {}

    def export(step: int, *, final: bool = False) -> Genotype:
        genotype = _derive(supernet, config, cost, epochs, step)
        path = run.save_genotype(genotype, None if final else step)
        save_picture(path.with_suffix(".svg"), description, genotype)
        epochs[step] = genotype
        return genotype

    def save(step: int) -> None:
        state = {"step": step, "supernet": supernet.state_dict(), "levels": levels.state_dict()}
        run.save_checkpoint({**state, "random": checkpoint.random_state()})

    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        state = run.resume()
        start = 0
        if state is None:
            _check(config, description, task)
            supernet.derive(at_most=config.search.at_most)  # raises for limits that cannot be kept
            if config.start:
                _start(config, supernet, levels)
            save(0)
        else:
            with checkpoint.restoring(run.path / LAST):
                start = int(state["step"])
                _load(supernet, state, run.path)
                levels.load_state_dict(state["levels"])
                checkpoint.set_random_state(state["random"])
            epochs |= {step: genotype for step, genotype in read_genotypes(run.path).items() if step <= start}
        if start == 0:
            if config.start:
                run.record(ORIGIN, 0, search=os.path.relpath(config.start, run.path))
            candidates = {label: list(supernet.decisions[label].candidates) for label in supernet.arch}
            run.record("decisions", 0, decisions=candidates)
            _record_weights(run, 0, supernet)
        if on_step is not None:
            on_step(start, {}, supernet)
        for k in range(start, steps):
            try:
                moved = levels.step(k)
            except DivergedError:
                save(k + 1)
                raise
            for name, move in moved.items():
                run.record("train", k + 1, level=name, loss=move.loss, gradient=move.gradient, **move.terms)
            if on_step is not None:
                on_step(k + 1, moved, supernet)
            stop = run.stop()
            if config.search.ends_epoch(k + 1):
                _record_weights(run, k + 1, supernet)
                genotype = export(k + 1)
                run.record(INDICATORS, k + 1, **observe(supernet, genotype))
                if measure is not None:
                    run.record(VALIDATION, k + 1, **measure(supernet))
                records = read_records(run.path)
                if best := best_epoch(records, task.score):
                    epochs[best].save(run.path / BEST)
                save(k + 1)
                if on_epoch is not None:
                    observed = [record for record in records if record["kind"] == INDICATORS]
                    on_epoch(k + 1, advice(observed, finished=k + 1 == steps))
            elif stop:
                save(k + 1)
            if stop:
                raise KeyboardInterrupt
        levels.require_moved()  # where it was resumed at its end
    return export(steps, final=True)


def build_supernet(config: Config) -> Supernet:
    """The supernet of a configuration, at its initial weights."""
    space = find_space(config.space)
    how = config.search
    supernet = Supernet(
        space,
        relaxation=how.relaxation,
        seed=config.seed,
        evaluation=how.evaluation,
        memory=how.memory,
        **config.options,
    )
    checkpoint.load_parts(supernet.network, config.initial, lambda: config.parts(config.options))
    return supernet.to(config.torch_device())


def build_levels(
    config: Config, supernet: Supernet, task: Task, batch: Callable[[str, int], Any] | None = None
) -> Multilevel:
    """The levels of a search over its supernet; `batch` where it is not the task's own. Raises `ConfigError` where they
    cannot work."""
    prices: dict[str, Callable[[], Cost]] = {
        "expected_cost": lambda: costs(_describe(config)),
        "expected_flops": lambda: costs(_describe(config), "flops", task.example()),
        "expected_latency": lambda: tabulated(supernet.decisions, config.search.latency),
    }
    used = {term.name for level in config.search.levels.values() for term in level.regularizers}
    terms = {name: {"cost": price()} for name, price in prices.items() if name in used}
    how = config.search
    return Multilevel(supernet, how.levels, task.losses, batch or task.batch, how.steps, terms, precision=how.precision)


def derive_from(run: str | Path, at_most: Mapping[str, int] | None = None) -> Genotype:
    """The genotype that a search, finished or not, derives at its last checkpoint; `at_most` in place of the limits of
    its configuration.

    Raises `ConfigError` before the first one, and `InvalidFileError` where the folder holds no search.
    """
    config, supernet, step = _searched(Path(run))
    if at_most is not None:
        config = replace(config, search=replace(config.search, at_most=dict(at_most)))
    return _derive(supernet, config, costs(_describe(config)), read_genotypes(run), step)


def inherit_from(run: str | Path, genotype: Genotype) -> nn.Module:
    """The derived network of `genotype`, with the operation weights that a search had at its last checkpoint.

    Raises what `derive_from` and `Supernet.derived` do.
    """
    return _searched(Path(run))[1].derived(genotype)


def _derive(supernet: Supernet, config: Config, cost: Cost, epochs: Mapping[int, Genotype], step: int) -> Genotype:
    """The genotype at a step; of those derived at epochs the earlier ones tell which of its decisions are undecided."""
    provenance = Provenance(
        package=package_version(),
        seed=config.seed,
        config=config_hash(config.dump()),
        source=f"a search that started from the last state of {config.start}" if config.start else "",
    )
    genotype = supernet.derive(provenance, cost.candidates, config.search.at_most)
    return judged(genotype, [earlier for at, earlier in epochs.items() if at < step])


def _last(run: Path) -> tuple[Config, dict[str, Any]]:
    """The configuration and the last state of a search."""
    if not (run / CONFIG).is_file():
        raise InvalidFileError(f"{run}: not the folder of a search (it has no {CONFIG})")
    state = read_state(run)
    if state is None or ("supernet" in state and not state.get("step")):
        raise ConfigError(f"{run}: no checkpoint yet, so nothing to derive from; wait for the first epoch to end")
    return load_config(run / CONFIG), state


def _searched(run: Path) -> tuple[Config, Supernet, int]:
    """The configuration of a search, and its supernet at the last checkpoint, and the steps done then."""
    config, state = _last(run)
    # Files and devices may be gone.
    supernet = build_supernet(replace(config, initial={}, device="cpu"))
    _load(supernet, state, run)
    return config, supernet, int(state["step"])


def _start(config: Config, supernet: Supernet, levels: Multilevel) -> None:
    """Give a new search the last state of another one."""
    before, state = _last(Path(config.start))
    _load(supernet, state, Path(config.start))
    if _optimizers(before) == _optimizers(config):
        levels.load_state_dict({**levels.state_dict(), "optimizers": state["levels"]["optimizers"]})


def _optimizers(config: Config) -> dict[str, tuple[object, ...]]:
    """What must be equal for the states of optimizers to fit; learning rates follow the schedules."""
    levels = config.search.levels.items()
    return {name: (level.parameters, replace(level.optimizer, lr=0.0)) for name, level in levels}


def _load(supernet: Supernet, state: dict[str, Any], run: Path) -> None:
    if "supernet" not in state:
        raise ConfigError(f"{run}: not the folder of a search, but of a retraining")
    checkpoint.load_into(supernet, state["supernet"], run / LAST)


def _describe(config: Config) -> Description:
    return find_space(config.space).describe(**config.options)


def _observer(config: Config, task: Task, description: Description, levels: Multilevel) -> Observer:
    """Indicators on the first batch of the level that owns the arch parameters."""
    level = _arch_level(config, levels)
    if level is None:
        return Observer(description)
    loss = task.losses[level.loss]
    products = config.search.hessian_products
    return Observer(description, lambda model: loss(model, levels.batch(level.split, 0)), products)


def _arch_level(config: Config, levels: Multilevel) -> Level | None:
    """The level that owns the arch parameters."""
    owners = (name for name, owned in levels.owned.items() if any(p.startswith("arch.") for p in owned))
    return next((config.search.levels[name] for name in owners), None)


def _check(config: Config, description: Description, task: Task) -> None:
    """What can be known of the space before the first step, from an example of the task alone."""
    try:
        check_inheritance(description, task.example())
    except SpaceError as error:
        if config.search.check == "error":
            raise SpaceError(f"{error}. With search.check=warn the search starts all the same") from error
        warnings.warn(str(error), stacklevel=3)


def _validation(config: Config, task: Task, levels: Multilevel) -> Callable[[Supernet], dict[str, float]] | None:
    """The task's metrics of a supernet, means over the first batches of the split of the arch parameters' level."""
    level = _arch_level(config, levels)
    take: Callable[[nn.Module, Any], dict[str, float]] | None = getattr(task, "measure", None)
    if level is None or take is None or not config.search.validation_batches:
        return None

    def measure(supernet: Supernet) -> dict[str, float]:
        with in_mode(supernet, "eval"), torch.no_grad():
            batches = (levels.batch(level.split, index) for index in range(config.search.validation_batches))
            rows = [take(supernet, batch) for batch in batches]
        return {name: statistics.fmean(row[name] for row in rows) for name in rows[0]}

    return measure


def _record_weights(run: Run, step: int, supernet: Supernet) -> None:
    with torch.no_grad():
        weights = {label: weight.tolist() for label, weight in supernet.mixing_weights().items()}
    run.record("mixing", step, weights=weights)
