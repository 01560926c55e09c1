"""The search: train a supernet level by level, record what it would derive, and export a genotype."""

from __future__ import annotations

import functools
import inspect
import itertools
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from msgspec.structs import replace
from torch import Tensor, nn

from nas.cost.latency import tabulated
from nas.cost.network_cost import Unit
from nas.cost.space_cost import Cost, costs
from nas.declarations import EIGENVALUE, Declaration, Part, declaration_of, require_composed
from nas.derive.candidates import strengths
from nas.derive.perturbation import Begin
from nas.derive.policy import find_policy, require_limits
from nas.derive.stability import judged
from nas.derive.tradeoffs import best_at_each_cost
from nas.distributed.ranks import of_first
from nas.draw.rendering import save as save_picture
from nas.errors import ConfigError, InvalidFileError, SpaceError
from nas.genotype.decision import Choice
from nas.genotype.file import Genotype, Provenance
from nas.kernels.device import placed
from nas.multilevel.level import Level, assign
from nas.multilevel.multilevel import Multilevel
from nas.registry import entry_name, kind
from nas.run import checkpoint
from nas.run.carrying import carry_over, changes
from nas.run.collapse import Collapse
from nas.run.config import Config, load_config
from nas.run.folder import BEST, CONFIG, LAST, ORIGIN, Run, config_hash, package_version, read_genotypes, read_state
from nas.run.inheritance import check_inheritance
from nas.run.logit_gradients import LogitGradients
from nas.run.loop import Loop, require_kind
from nas.run.observer import Observer, configured
from nas.run.projection import STATE, TrainedProjection, projected
from nas.run.recalibration import recalibrated
from nas.run.record_kinds import EDGES
from nas.run.stages import Stage, stages_of, survivors
from nas.run.stopping import STOPPING, Stop, StoppingRule, create_rule, part_of, read_epochs
from nas.run.task import Task
from nas.run.validation import Score, Validation, mean_metrics, sign
from nas.space.chooser import Kept
from nas.space.definition import Description, SearchSpace, find_space
from nas.supernet import Supernet

STAGE, KEPT = "stage", "kept"
"""Fields of the state of a search in stages: the name of the present one, and the candidates that are left.

A record of the kind `stage` begins a stage; it has its name and its `decisions`.
"""


def search(
    config: Config,
    run: Run,
    observers: Sequence[Observer] = (),
    *,
    task: Task | None = None,
    minutes: float | None = None,
) -> Genotype:
    """Search in the configured space; resumes from the last checkpoint of the run, if it has one.

    Equal configurations give equal genotypes. The run folder receives metrics, checkpoints, the genotype and picture
    of each epoch, `genotype.yaml`, and `best.yaml`: the genotype of the epoch whose supernet scored best on validation
    batches.

    Args:
        config: of the search.
        run: the folder.
        observers: called after those of `search.observers`.
        task: in place of the configured one.
        minutes: after which this process stops searching at the end of a step, and derives the genotype of then.

    Raises:
        ConfigError: the configuration cannot work; nothing is recorded then.
        SpaceError: derived networks could not inherit the weights of narrow widths; nothing is recorded then.
        DivergedError: the losses stopped being finite; the last state is saved.
        KeyboardInterrupt: the run was asked to stop; the step is saved.
    """
    loop = _Search(config, run, observers, task or config.build_task(), minutes)
    return loop.export(loop.go(), final=True)


class Best(NamedTuple):
    """A genotype that is best at its cost."""

    genotype: Genotype
    score: float
    """The sum of the logarithms of the mixing weights of its choices."""
    cost: float


class _Search(Loop):
    kind = "search"

    def __init__(
        self, config: Config, run: Run, observers: Sequence[Observer], task: Task, minutes: float | None
    ) -> None:
        self.config, self.task = config, task
        self.plan = stages_of(config)
        self._build(self.plan[0], {})
        self.epochs: dict[int, Genotype] = {}
        self.score = _scorer(config, task, self.supernet, self._batch)
        how = config.search
        self.rule = None if how.stopping is None else create_rule(how.stopping, self.description, how.epochs)
        self.stop: Stop | None = None
        own: list[Observer] = [
            _collapse(config, task, self.description, self.supernet, lambda: self.levels),
            LogitGradients(),
        ]
        if self.score is not None:
            own.append(Validation(self.score, task))
        given = {"description": self.description, "task": task}
        chosen = configured(how.observers, **given, **({} if how.stages else {"levels": self.levels}))
        super().__init__(
            run,
            [stage.length for stage in self.plan],
            epochs=how.epochs,
            seed=config.seed,
            observers=[*own, *chosen, *observers],
            minutes=minutes,
            checkpoint_minutes=config.search.checkpoint_minutes,
        )

    @property
    def network(self) -> Supernet:
        return self.supernet

    @property
    def levels(self) -> Multilevel:
        return self._levels

    @property
    def first(self) -> int:
        return self.plan[self.stage].first

    def _build(self, stage: Stage, kept: Kept) -> None:
        """Make the supernet of a stage, over the candidates that are left, and its levels."""
        self.kept = kept
        self.part, space = stage.over(kept)  # the stage as a search of its own
        self.description = space.whole.describe(**self.part.options)
        carried = stage.continues or self.config.start
        self.supernet = build_supernet(replace(self.part, initial={}) if carried else self.part, space)
        self._levels = build_levels(self.part, self.supernet, self.task)
        self.price = _prices(self.part, self.supernet, self.task, None if kept else self.description)

    def _batch(self, split: str, index: int) -> Any:
        """A batch on the device, as the levels read it."""
        return self.levels.batch(split, index)

    def enter(self, step: int) -> None:
        before, stage = self.levels, self.plan[self.stage]
        self._build(stage, survivors(self.supernet, self.plan[self.stage - 1].keep))
        if stage.continues:
            carry_over(before, self.levels)
        self._record_stage(step)

    def restore(self, state: Mapping[str, Any]) -> None:
        if self.stage:
            with checkpoint.restoring(self.run.path / LAST):
                kept = state[KEPT]
            self._build(self.plan[self.stage], kept)

    def extra_state(self) -> dict[str, Any]:
        return {STAGE: self.plan[self.stage].name, KEPT: self.kept} if self.config.search.stages else {}

    def prepare(self) -> None:
        require_composed([*self.levels.parts, *_parts(self.config, self.rule)])
        _check(self.config, self.description, self.task)
        _check_later(self.plan, self.levels, [*_parts(self.config, self.rule)])
        if _trains(self.config):
            _require_projectable(self.config, self.score)
        with warnings.catch_warnings(action="ignore"):  # of equal mixing weights there is nothing to say
            self._derive(0)  # raises for a policy that is not known, and for limits that cannot be kept
        if self.config.start:
            _start(self.config, self.supernet, self.levels)

    def check_resumed(self, step: int) -> None:
        texts = of_first(lambda: {at: each.dump() for at, each in read_genotypes(self.run.path).items() if at <= step})
        self.epochs |= {at: Genotype.parse(text) for at, text in texts.items()}
        self._ask()

    def record_start(self) -> None:
        if self.config.start:
            self.run.record(ORIGIN, 0, search=os.path.relpath(self.config.start, self.run.path))
        candidates = {
            label: list(self.supernet.decisions[label].candidates) for label in self.supernet.candidate_logits()
        }
        self.run.record("decisions", 0, decisions=candidates)
        if self.config.search.stages:
            self._record_stage(0)
        self._record_weights(0)

    def end_epoch(self, step: int) -> Genotype:
        self._record_weights(step)
        return self.export(step)

    def judge(self, step: int) -> None:
        self._ask()
        if self.stop is not None:
            rule = entry_name(self.config.search.stopping or "")
            about = {"rule": rule, "reason": self.stop.reason, "genotype": self.stop.step}
            self.run.record(STOPPING, step, **about, steps=self.steps)

    @property
    def ended(self) -> bool:
        return self.stop is not None

    def _ask(self) -> None:
        """Ask the rule whether the search ends here, by the records, so that a resumed run gets the same answer."""
        if (rule := self.rule) is None:
            return

        def asked() -> tuple[str, int] | None:
            epochs = read_epochs(self.run.path, self.epochs)
            stop = rule(epochs) if epochs else None
            return None if stop is None else (stop.reason, stop.step)

        found = of_first(asked)
        self.stop = None if found is None else Stop(*found)

    def export(self, step: int, *, final: bool = False) -> Genotype:
        """Derive the genotype, or take that of the epoch which a stopping rule names; write it and its picture."""
        chosen = self.stop.step if final and self.stop is not None else step
        genotype = self._derive(step, final=final) if chosen == step else self.epochs[chosen]
        if chosen != step and _trains(self.config):
            name = entry_name(self.config.search.derivation)
            warnings.warn(
                f"the genotype is that of step {chosen}, as derivation 'strongest' reads it: '{name}' trains the"
                " supernet of the last step",
                stacklevel=2,
            )
        path = self.run.save_genotype(genotype, None if final else step)
        save_picture(path.with_suffix(".svg"), self.description, genotype)
        self.epochs[step] = genotype
        return genotype

    def _derive(self, step: int, *, final: bool = False) -> Genotype:
        config, project = self.part, None
        if _trains(config):
            if final:
                frozen = {name: list(freezer.frozen) for name, freezer in self.levels.freezers.items()}
                project = _projecting(config, self.supernet, self.task, self.run.path, step, frozen)
            else:  # an epoch's genotype shows the state of the search; training for it would take longer than the epoch
                config = replace(config, search_section=replace(config.search, derivation="strongest"))
        origin = _provenance(self.config)
        return _derive(self.supernet, config, origin, self.task, self.score, self.price, self.epochs, step, project)

    def _record_stage(self, step: int) -> None:
        """Record a stage that begins after a step, and the candidates of each decision that are left."""
        left = {label: list(self.supernet.decisions[label].candidates) for label in self.supernet.candidate_logits()}
        self.run.record(STAGE, step, stage=self.plan[self.stage].name, decisions=left)

    def _record_weights(self, step: int) -> None:
        """Record the mixing weights; those of candidates that were dropped are 0."""
        with torch.no_grad():
            found = {label: weight.tolist() for label, weight in self.supernet.mixing_weights().items()}
        weights = {}
        for label, decision in self.description.decisions.items():
            if decision.kind != "inputs":
                own = self.supernet.decisions[label].candidates if label in found else ()
                left = dict(zip(own, found.get(label, []), strict=True))
                weights[label] = [left.get(candidate, 0.0) for candidate in decision.candidates]
        self.run.record("mixing", step, weights=weights)
        if edges := _edges(self.supernet):
            self.run.record(EDGES, step, edges=edges)


def _edges(supernet: Supernet) -> dict[str, dict[str, tuple[float, float]]]:
    """Of each node whose in-edges have factors, by source: the factor, and the largest mixing weight on the edge."""
    with torch.no_grad():
        factors = {label: own.tolist() for label, own in supernet.edge_weights().items()}
        weights = {label: own for label, own in supernet.strengths().items() if label not in factors}
    best = strengths(supernet.decisions, weights) if factors else {}
    return {
        label: {
            str(source): (factor, weight)
            for source, factor, weight in zip(supernet.decisions[label].candidates, own, best[label], strict=True)
        }
        for label, own in factors.items()
    }


def build_supernet(config: Config, space: SearchSpace | None = None) -> Supernet:
    """The supernet of a configuration, at its initial weights; over `space` if it has fewer candidates."""
    supernet = _supernet(config, space or find_space(config.space))
    checkpoint.load_parts(supernet.network, config.initial, lambda: config.parts(config.options))
    return supernet.to(config.torch_device())


def _supernet(config: Config, space: SearchSpace) -> Supernet:
    how = config.search
    return Supernet(
        space,
        relaxation=how.relaxation,
        wrappers=how.wrappers,
        seed=config.seed,
        evaluation=how.evaluation,
        memory=how.memory,
        **config.options,
    )


def build_levels(
    config: Config,
    supernet: Supernet,
    task: Task,
    batch: Callable[[str, int], Any] | None = None,
    *,
    elapsed: int | None = None,
) -> Multilevel:
    """The levels of a search over its supernet.

    Args:
        config: of the search.
        supernet: of its space.
        task: has the losses and the data.
        batch: in place of the task's own batches.
        elapsed: of a training that follows a search, the steps of this search (see `Multilevel`).

    Raises:
        ConfigError: the levels cannot work.
    """
    prices: dict[str, Callable[[], Cost]] = {
        "cost": lambda: costs(_described(supernet)),
        "flops": lambda: costs(_described(supernet), "flops", task.example()),
        "latency": lambda: tabulated(supernet.decisions, config.search.latency),
    }
    how = config.search
    return Multilevel(
        supernet,
        how.levels,
        task.losses,
        batch or task.batch,
        how.steps,
        prices,
        precision=how.precision,
        elapsed=elapsed,
        synchronized=config.batch_norm == "synchronized",
        threaded=batch is None and config.prefetch and task.threaded,
    )


def derive_from(
    run: str | Path,
    at_most: Mapping[str, int] | None = None,
    derivation: str | Mapping[str, Any] | None = None,
) -> Genotype:
    """Derive the genotype of a search, finished or not, at its last checkpoint.

    Args:
        run: the folder of the search.
        at_most: in place of the limits of its configuration.
        derivation: in place of the policy of its configuration: a name, or a mapping of `name` and arguments.

    Raises:
        ConfigError: the search has no checkpoint yet, or the policy cannot work with it.
        InvalidFileError: the folder holds no search.
        UnknownNameError: no policy has this name.
    """
    whole, part, supernet, step = _searched(Path(run))

    def asked(config: Config) -> Config:
        how = config.search
        how = replace(how, at_most=how.at_most if at_most is None else dict(at_most))
        how = replace(how, derivation=how.derivation if derivation is None else derivation)
        return replace(config, search_section=how)

    config, how = asked(part), asked(part).search
    policy = find_policy(how.derivation, "search.derivation")
    task, score, project = None, None, None
    if derivation is not None:
        require_composed([*supernet.parts(), _derivation(config)])
    if {"evaluate", "evaluate_recalibrated"} & {*inspect.signature(policy).parameters}:  # else no data are read
        task = config.build_task()
        score = _scorer(config, task, supernet, task.batch)
    if _trains(config):
        task = task or config.build_task()
        saved = (read_state(run) or {})["levels"].get("freezing", {})
        frozen = {name: state["frozen"] for name, state in saved.items()}
        project = _projecting(config, supernet.to(config.torch_device()), task, Path(run), step, frozen)
    price, origin = _prices(config, supernet, task), _provenance(asked(whole))
    return _derive(supernet, config, origin, task, score, price, read_genotypes(run), step, project)


def tradeoffs_from(run: str | Path, unit: Unit, most: float = math.inf) -> list[Best]:
    """Return the genotypes of a search that are best at their cost, at its last checkpoint, by ascending cost.

    See `nas.derive.tradeoffs`.

    Args:
        run: the folder of the search.
        unit: of the cost: `parameters`, or `flops` for the example of its task.
        most: the largest cost.

    Raises:
        ConfigError: the search has no checkpoint yet.
        InvalidFileError: the folder holds no search.
    """
    config, supernet, _ = searched(Path(run))
    weights = {label: weight.detach() for label, weight in supernet.strengths().items()}
    found = best_at_each_cost(supernet.decisions, weights, _prices(config, supernet, None)(unit).shares, most)
    return [
        Best(Genotype(space=config.space, options=supernet.options, choices=choices), score, cost)
        for choices, score, cost in found
    ]


def inherit_from(run: str | Path, genotype: Genotype) -> nn.Module:
    """The derived network of `genotype`, with the operation weights that a search had at its last checkpoint.

    Raises what `derive_from` and `Supernet.derived` do.
    """
    return searched(Path(run))[1].derived(genotype)


def _derive(
    supernet: Supernet,
    config: Config,
    provenance: Provenance,
    task: Task | None,
    score: Score | None,
    price: Callable[[Unit], Cost],
    epochs: Mapping[int, Genotype],
    step: int,
    project: Begin | None = None,
) -> Genotype:
    """The genotype at a step; the genotypes of earlier epochs tell which of its decisions are undecided."""

    def evaluate(choices: Mapping[str, Choice]) -> float:
        assert task is not None
        assert score is not None
        with supernet.fixed(Genotype(space=config.space, options=supernet.options, choices=dict(choices))):
            return sign(task) * score(supernet)[task.score]

    def evaluate_recalibrated(choices: Mapping[str, Choice]) -> float:
        assert task is not None
        assert score is not None
        genotype = Genotype(space=config.space, options=supernet.options, choices=dict(choices))
        metrics = shared_metrics(config, supernet, task, genotype, score, config.search.validation_batches)
        return sign(task) * metrics[task.score]

    genotype = supernet.derive(
        provenance,
        price("parameters").candidates,
        config.search.at_most,
        derivation=config.search.derivation,
        shares=lambda unit: price(unit).shares,
        evaluate=None if score is None else evaluate,
        evaluate_recalibrated=None if score is None else evaluate_recalibrated,
        project=project,
    )
    return judged(genotype, [earlier for at, earlier in epochs.items() if at < step])


def _provenance(config: Config) -> Provenance:
    """Where the genotypes of a search come from, given its whole configuration."""
    return Provenance(
        package=package_version(),
        seed=config.seed,
        config=config_hash(config.dump()),
        source=f"a search that started from the last state of {config.start}" if config.start else "",
    )


def _trains(config: Config) -> bool:
    """Whether the derivation policy trains a copy of the supernet between decisions."""
    policy = find_policy(config.search.derivation, "search.derivation")
    return "project" in inspect.signature(policy).parameters


def _require_projectable(config: Config, score: Score | None) -> Score:
    """What scores candidates; raises `ConfigError` if a policy that trains cannot work, so that no search is wasted."""
    entry = config.search.derivation
    name = entry_name(entry)
    if score is None:
        raise ConfigError(
            f"derivation '{name}' must have validation batches, got none: set search.validation_batches above 0,"
            " and use a task with a method `measure` and a level that owns the arch parameters"
        )
    require_limits(name, inspect.signature(find_policy(entry)).parameters, config.search.at_most)
    return score


def _projecting(
    config: Config, supernet: Supernet, task: Task, folder: Path, step: int, frozen: Mapping[str, Sequence[str]]
) -> Begin:
    """What begins a projection of a copy of the supernet, in the folder of its search.

    `frozen` are the operations that its levels froze, by level; they stay so.
    """

    def project(*, rounds: int, epochs: int, lr: float) -> TrainedProjection:
        how = config.search
        steps = epochs * math.ceil(how.steps / how.epochs)
        training = projected(config, max(rounds * steps, 1), lr, list(_owners(config, supernet, "network.")))
        copy = build_supernet(training, supernet.space).to(next(supernet.parameters()).device)
        copy.load_state_dict(supernet.state_dict())
        levels = build_levels(training, copy, task, elapsed=how.steps)
        for name, operations in frozen.items():
            levels.freezers[name].freeze(operations)
        score = _require_projectable(config, _scorer(config, task, copy, levels.batch))
        key = {"config": config_hash(config.dump()), "step": step, "rounds": rounds, "epochs": epochs, "lr": lr}
        return TrainedProjection(
            copy,
            levels,
            lambda network: sign(task) * score(network)[task.score],
            steps=steps,
            path=folder / STATE,
            key=key,
        )

    return project


def shared_metrics(
    config: Config, supernet: Supernet, task: Task, genotype: Genotype, score: Score, batches: int
) -> dict[str, float]:
    """Return the metrics of a supernet fixed to a genotype, with the statistics of its norms computed again.

    Args:
        config: of the search that trained the supernet.
        supernet: stays as it is.
        task: has the training data.
        genotype: of the space, with the options of the supernet.
        score: the metrics of a network.
        batches: the number of training batches for the statistics.
    """
    level = _weight_level(config, supernet)
    device = next(supernet.parameters()).device
    data = (placed(task.batch(level.split, index), device) for index in range(batches))
    with supernet.fixed(genotype), recalibrated(supernet, task.losses[level.loss], data):
        return score(supernet)


def weight_levels(config: Config, description: Description) -> dict[str, Level]:
    """Return the levels of a search that own operation weights."""
    arch = [f"arch.{label}" for label, decision in description.decisions.items() if decision.kind != "inputs"]
    weights = [f"network.{name}" for name, _ in description.network.named_parameters()]
    owned = assign(config.search.levels, [*weights, *arch])
    return {name: level for name, level in config.search.levels.items() if any(own in weights for own in owned[name])}


def _prices(
    config: Config, supernet: Supernet, task: Task | None, description: Description | None = None
) -> Callable[[Unit], Cost]:
    """What the candidates of a supernet cost, by unit; FLOPs are those of the task's example."""

    def price(unit: Unit) -> Cost:
        inputs = (task or config.build_task()).example() if unit == "flops" else None
        return costs(description or _described(supernet), unit, inputs)

    return functools.cache(price)


def _last(folder: Path) -> tuple[Config, dict[str, Any]]:
    """The configuration and the last state of a search."""
    if not (folder / CONFIG).is_file():
        raise InvalidFileError(f"{folder}: not the folder of a search (it has no {CONFIG})")
    state = read_state(folder)
    if state is not None:
        with checkpoint.restoring(folder / LAST):
            require_kind(folder, state, "search")
    if state is not None and "network" not in state:
        raise ConfigError(
            f"{folder}: must be a search by the gradient, got one by a searcher; its best genotype is in {BEST}"
        )
    if state is None or not state["step"]:
        raise ConfigError(f"{folder}: no checkpoint yet, so nothing to derive from; wait for the first epoch to end")
    return load_config(folder / CONFIG), state


def searched(folder: Path) -> tuple[Config, Supernet, int]:
    """The configuration of a search, and its supernet at the last checkpoint, and the steps done then.

    Of a search in stages, the configuration is that of its last stage.
    """
    return _searched(folder)[1:]


def _searched(folder: Path) -> tuple[Config, Config, Supernet, int]:
    """The whole configuration of a search, that of its last stage, its supernet at the last checkpoint, and the steps
    done then."""
    config, state = _last(folder)
    with checkpoint.restoring(folder / LAST):
        stage = next(stage for stage in stages_of(config) if stage.name == state.get(STAGE, ""))
    part, space = stage.over(state.get(KEPT, {}))
    # Files and devices may be gone.
    supernet = build_supernet(replace(part, initial={}, device="cpu"), space)
    checkpoint.load_into(supernet, state["network"], folder / LAST)
    return config, part, supernet, int(state["step"])


def _start(config: Config, supernet: Supernet, levels: Multilevel) -> None:
    """Give a new search the last state of another one."""
    before, state = _last(Path(config.start))
    checkpoint.load_into(supernet, state["network"], Path(config.start) / LAST)
    if _optimizers(before) == _optimizers(config):
        levels.load_state_dict({**levels.state_dict(), "optimizers": state["levels"]["optimizers"]})


def _optimizers(config: Config) -> dict[str, tuple[object, ...]]:
    """What must be equal for the states of optimizers to fit; learning rates follow the schedules."""
    levels = config.search.levels.items()
    return {name: (level.parameters, {**level.optimizer, "lr": 0.0}) for name, level in levels}


def _described(supernet: Supernet) -> Description:
    """The decisions of a supernet, with the candidates that it has."""
    return supernet.space.describe(**supernet.options)


def _collapse(
    config: Config, task: Task, description: Description, supernet: Supernet, levels: Callable[[], Multilevel]
) -> Collapse:
    """Indicators on the first batch of the level that owns the arch parameters; `levels` returns those of the stage."""
    level = _arch_level(config, supernet)
    if level is None:
        return Collapse(description)
    loss, products = task.losses[level.loss], config.search.hessian_products

    def measured(model: nn.Module) -> Tensor:
        return levels().mean(functools.partial(loss, model), levels().batch(level.split, 0))

    return Collapse(description, measured, products)


def _scorer(config: Config, task: Task, supernet: Supernet, batch: Callable[[str, int], Any]) -> Score | None:
    """The task's metrics of a network: means over the first batches of `search.validation_split`.

    None if no split is given and no level owns the arch parameters, the task measures no single batch, or
    `search.validation_batches` is 0.
    """
    level = _arch_level(config, supernet)
    split = config.search.validation_split or (None if level is None else level.split)
    count = config.search.validation_batches
    if split is None or not task.has("measure") or not count:
        return None
    return lambda network: mean_metrics(network, task.measure, (batch(split, index) for index in range(count)))


def _arch_level(config: Config, supernet: nn.Module) -> Level | None:
    """The level that owns the arch parameters."""
    return next(_owners(config, supernet, "arch."), None)


def _weight_level(config: Config, supernet: nn.Module) -> Level:
    """The level that owns most operation weights."""
    return next(_owners(config, supernet, "network."))


def _owners(config: Config, supernet: nn.Module, prefix: str) -> Iterator[Level]:
    """The levels that own parameters of this prefix, those with most of them first."""
    names = [name for name, parameter in supernet.named_parameters() if parameter.requires_grad]
    owned = assign(config.search.levels, names)
    counts = {name: sum(parameter.startswith(prefix) for parameter in own) for name, own in owned.items()}
    return (config.search.levels[name] for name in sorted(counts, key=counts.__getitem__, reverse=True) if counts[name])


def _derivation(config: Config) -> Part:
    """The derivation policy, for the check that it fits the other parts."""
    name = entry_name(config.search.derivation)
    return Part(f"derivation '{name}'", declaration_of(kind("derivation").find(name)))


def _parts(config: Config, rule: StoppingRule | None) -> Iterator[Part]:
    """The parts of a search beside those that act on its supernet, for the check that they fit one another."""
    yield _derivation(config)
    if config.search.hessian_products:
        yield Part("search.hessian_products", Declaration(gives=frozenset({EIGENVALUE})))
    if rule is not None:
        yield part_of(config.search.stopping or "", rule)


def _check_later(stages: Sequence[Stage], levels: Multilevel, others: Sequence[Part]) -> None:
    """Raise `ConfigError` if a stage after the first cannot work; its supernet is built without memory for weights.

    Args:
        stages: of the search.
        levels: of the first stage.
        others: parts of the search that do not act on its supernet.
    """
    first = levels.model
    assert isinstance(first, Supernet)
    fixed = levels.parts[len(first.parts()) :]
    before = first
    left: Kept = {label: first.decisions[label].candidates for label in first.candidate_logits()}
    for previous, stage in itertools.pairwise(stages):
        config, space = stage.over({})
        left = {label: names[: previous.keep] for label, names in left.items()}
        try:
            with torch.device("meta"):
                supernet = _supernet(config, space)
            require_composed([*supernet.parts(), *fixed, *others])
            if stage.continues:
                changes(before, supernet)
            elif config.initial:
                _check_initial(*stage.over(left))
        except (ConfigError, InvalidFileError, SpaceError) as error:
            raise type(error)(f"search.stages.{stage.name}: {error}") from error
        before = supernet


def _check_initial(config: Config, space: SearchSpace) -> None:
    """Raise `InvalidFileError` if a stage from scratch cannot have the initial weights; whose candidates are left."""
    with torch.device("meta"):
        network = _supernet(config, space).network
    with warnings.catch_warnings(action="ignore"):  # nothing is copied to the device `meta`, but shapes are compared
        checkpoint.load_parts(network, config.initial, lambda: config.parts(config.options))


def _check(config: Config, description: Description, task: Task) -> None:
    """What can be known of the space before the first step, from an example of the task alone."""
    try:
        check_inheritance(description, task.example())
    except SpaceError as error:
        if config.search.check == "error":
            raise SpaceError(f"{error}. With search.check=warn the search starts all the same") from error
        warnings.warn(str(error), stacklevel=3)
