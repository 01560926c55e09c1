"""The search: train a supernet level by level, record what it would derive, and export a genotype."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn

from nas import checkpoint
from nas.config import Config, load_config
from nas.cost import Cost, costs
from nas.draw import save as save_picture
from nas.errors import ConfigError, DivergedError, InvalidFileError, SpaceError
from nas.genotype import Genotype, Provenance
from nas.inheritance import check_inheritance
from nas.latency import tabulated
from nas.multilevel import Moved, Multilevel
from nas.observe import INDICATORS, Observer, advice
from nas.run import CONFIG, LAST, Run, config_hash, package_version, read_records, read_state
from nas.space import Description, find_space
from nas.supernet import Supernet
from nas.task import Task

OnStep = Callable[[int, dict[str, Moved], Supernet], None]
"""Called where the search begins and after each of its steps: (steps done, what each level did, the supernet)."""

OnEpoch = Callable[[int, list[str]], None]
"""Called after each epoch: (steps done, what the collapse indicators advise)."""


def search(config: Config, run: Run, on_step: OnStep | None = None, on_epoch: OnEpoch | None = None) -> Genotype:
    """Search in the configured space; goes on from the run's last checkpoint where there is one.

    Equal configurations give equal genotypes, and a run that was killed and resumed equals the uninterrupted one, bit
    for bit on one machine. The run folder receives metrics, checkpoints, the genotype and picture of each epoch, and
    `genotype.yaml`. Before anything is recorded raises `ConfigError` where the configuration cannot work, and
    `SpaceError` where derived networks could not inherit the weights of narrow widths; then `DivergedError`, once the
    last state is saved, where the losses stop being finite.
    """
    task = config.build_task()
    description = _describe(config)
    cost = costs(description)
    provenance = _provenance(config)
    supernet = build_supernet(config)
    steps = config.search.steps
    levels = build_levels(config, supernet, task)
    observe = _observer(config, task, description, cost, levels)

    def export(step: int | None = None) -> Genotype:
        genotype = supernet.derive(provenance, cost.candidates)
        path = run.save_genotype(genotype, step)
        save_picture(path.with_suffix(".svg"), description, genotype)
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
            save(0)
        else:
            with checkpoint.restoring(run.path / LAST):
                start = int(state["step"])
                _load(supernet, state, run.path)
                levels.load_state_dict(state["levels"])
                checkpoint.set_random_state(state["random"])
        if start == 0:
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
                run.record(INDICATORS, k + 1, **observe(supernet, export(k + 1)))
                save(k + 1)
                if on_epoch is not None:
                    epochs = [record for record in read_records(run.path) if record["kind"] == INDICATORS]
                    on_epoch(k + 1, advice(epochs, finished=k + 1 == steps))
            elif stop:
                save(k + 1)
            if stop:
                raise KeyboardInterrupt
    return export()


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


def derive_from(run: str | Path) -> Genotype:
    """The genotype that a search, finished or not, derives at its last checkpoint.

    Raises `ConfigError` before the first one, and `InvalidFileError` where the folder holds no search.
    """
    config, supernet = _searched(Path(run))
    return supernet.derive(_provenance(config), costs(_describe(config)).candidates)


def inherit_from(run: str | Path, genotype: Genotype) -> nn.Module:
    """The derived network of `genotype`, with the operation weights that a search had at its last checkpoint.

    Raises what `derive_from` and `Supernet.derived` do.
    """
    return _searched(Path(run))[1].derived(genotype)


def _searched(run: Path) -> tuple[Config, Supernet]:
    """The configuration of a search, and its supernet at the last checkpoint."""
    if not (run / CONFIG).is_file():
        raise InvalidFileError(f"{run}: not the folder of a search (it has no {CONFIG})")
    state = read_state(run)
    if state is None or ("supernet" in state and not state.get("step")):
        raise ConfigError(f"{run}: no checkpoint yet, so nothing to derive from; wait for the first epoch to end")
    config = load_config(run / CONFIG)
    supernet = build_supernet(
        msgspec.structs.replace(config, initial={}, device="cpu")
    )  # files and devices may be gone
    _load(supernet, state, run)
    return config, supernet


def _load(supernet: Supernet, state: dict[str, Any], run: Path) -> None:
    if "supernet" not in state:
        raise ConfigError(f"{run}: not the folder of a search, but of a retraining")
    checkpoint.load_into(supernet, state["supernet"], run / LAST)


def _describe(config: Config) -> Description:
    return find_space(config.space).describe(**config.options)


def _observer(config: Config, task: Task, description: Description, cost: Cost, levels: Multilevel) -> Observer:
    """Indicators on the first batch of the level that owns the arch parameters."""
    arch = next((name for name, owned in levels.owned.items() if any(p.startswith("arch.") for p in owned)), None)
    if arch is None:
        return Observer(description, cost.candidates)
    level = config.search.levels[arch]
    loss = task.losses[level.loss]
    products = config.search.hessian_products
    return Observer(description, cost.candidates, lambda model: loss(model, levels.batch(level.split, 0)), products)


def _check(config: Config, description: Description, task: Task) -> None:
    """What can be known of the space before the first step, from an example of the task alone."""
    try:
        check_inheritance(description, task.example())
    except SpaceError as error:
        if config.search.check == "error":
            raise SpaceError(f"{error}. With search.check=warn the search starts all the same") from error
        warnings.warn(str(error), stacklevel=3)


def _provenance(config: Config) -> Provenance:
    return Provenance(package=package_version(), seed=config.seed, config=config_hash(config.dump()))


def _record_weights(run: Run, step: int, supernet: Supernet) -> None:
    with torch.no_grad():
        weights = {label: weight.tolist() for label, weight in supernet.mixing_weights().items()}
    run.record("mixing", step, weights=weights)
