"""One step over any number of levels: plain training is one level, DARTS two, TMICS three."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nas.declarations import require_composed
from nas.errors import ConfigError, DivergedError
from nas.hypergradient.dense_hessian import FlatError
from nas.hypergradient.first_order import FirstOrder
from nas.hypergradient.methods import Repeated, create_response, name_of
from nas.hypergradient.response import Parameters, Response
from nas.hypergradient.virtual_step import rule_of
from nas.kernels.device import placed
from nas.kernels.evaluation import copied
from nas.kernels.second_order import not_differentiable
from nas.kernels.torch_internals import foreach_norm
from nas.multilevel.dependence import require_influence
from nas.multilevel.divergence import diagnosis
from nas.multilevel.freezer import freezers
from nas.multilevel.level import Level, Precision, assign
from nas.multilevel.loss_evaluation import AFTER, LossEvaluation, TaskLoss, trainable
from nas.multilevel.parts import parts_of
from nas.multilevel.prefetching import Batches
from nas.multilevel.regularizers import Resources
from nas.multilevel.responses import Gradient, Methods, Responses
from nas.multilevel.stepper import Stepper
from nas.multilevel.weight_decay import decay_of
from nas.registry import kind
from nas.supernet import Supernet


@dataclass
class Moved:
    """What one level did in one search step."""

    loss: float
    """The loss; regularizers are included, unless the level is `scale_free`."""
    gradient: float
    """Norm of the gradient before clipping."""
    terms: dict[str, float] = field(default_factory=dict)
    """What each regularizer added to the loss."""
    frozen: dict[str, list[str]] = field(default_factory=dict)
    """By lower level, the operations that were frozen by this step."""
    backoff: float | None = None
    """The factor by which the learning rate was lowered after this step, as the level's patience ended."""
    parts: dict[str, Parameters] = field(default_factory=dict, compare=False)
    """Parts of the gradient that the step descended, by name and parameter, if the level owns arch parameters.

    `loss` is that of the loss, responses of levels below included; `response` is their share of it. A regularizer has
    its name. `decay` is the gradient that would have the effect of the optimizer's weight decay.
    """


class Multilevel:
    """Levels over one model. Each moves only its own parameters.

    In a search step every level that is due takes its steps, from the lowest level to the highest:

    1. `Responses` computes the gradient of the level's loss, through the responses of the levels below.
    2. `Stepper` clips it, sets the learning rate and takes the optimizer's step.
    3. A step that is not finite is undone and counted. If a level's patience ends, its learning rate is lowered once if
       it has a `backoff`; otherwise the run stops with a diagnosis.

    Args:
        model: the supernet, or any network. Parameters that do not require a gradient belong to no level.
        levels: by name, from the lowest to the highest.
        losses: the task's losses by name.
        batch: a batch as a function of (split, index), the same at every call; it is moved to the model's device.
        steps: the number of search steps.
        resources: what regularizers may ask for, by name: `{"cost": lambda: costs(...)}`; computed if one does.
        precision: of the evaluations; parameters, gradients and optimizers keep their own.
        steppers: of the levels, in place of those that their `parameters` and `optimizer` describe. Then call `check`
            before the first step; otherwise the constructor does.
        span: where in the run its first step begins and its last one ends, as shares; the losses that depend on the
            progress of a run read it.
        elapsed: steps of a run that is over and that these follow, in place of `span`: what changes over a run stays as
            it was at its end, and random numbers are other ones.
        synchronized: whether batch norms use the samples of all ranks, if there are several.
        threaded: whether a thread makes the batches, one step ahead (see `Batches`).

    Raises:
        ConfigError: the levels cannot work; see `nas.multilevel.level.assign` and `check`.
        UnknownNameError: a loss, a hypergradient method or a regularizer does not exist.
    """

    def __init__(
        self,
        model: nn.Module,
        levels: Mapping[str, Level],
        losses: Mapping[str, TaskLoss],
        batch: Callable[[str, int], Any],
        steps: int,
        resources: Resources | None = None,
        precision: Precision = "float32",
        *,
        steppers: Mapping[str, Stepper] | None = None,
        span: tuple[float, float] = (0.0, 1.0),
        elapsed: int | None = None,
        synchronized: bool = False,
        threaded: bool = False,
    ) -> None:
        self.model, self.levels, self.steps = model, dict(levels), steps
        self._elapsed = elapsed
        self.steppers = _configured(model, self.levels, steps) if steppers is None else dict(steppers)
        self.owned = {name: list(stepper.parameters) for name, stepper in self.steppers.items()}
        methods = {name: self._methods(name) for name in self.levels}
        self.ahead = {name: _ahead(name, methods) for name in self.levels}
        """Of how many next steps of a level the responses to levels above read the batches."""
        device = next(p.device for stepper in self.steppers.values() for p in stepper.parameters.values())
        # Levels read the same batches again in the responses of one another.
        most = (level.accumulate * max(1, self.ahead[name]) for name, level in self.levels.items())
        self.batch = Batches(batch, lambda made: placed(made, device), sum(most), ahead=threaded)
        """The batches, on the device of the model."""
        self._evaluation = LossEvaluation(
            model,
            self.levels,
            losses,
            self.batch,
            steps,
            resources or {},
            precision,
            span if elapsed is None else AFTER,
            groups=[*self.owned.values()],
            synchronized=synchronized,
        )
        self._responses = Responses(self._evaluation, self.steppers, methods)
        self.freezers = freezers(model, self.levels, self.owned)
        """What freezes operations of a level, by the level."""
        for name, freezer in self.freezers.items():
            freezer.frozen = self.steppers[name].frozen
        self.parts = list(parts_of(model, self.levels, self.owned, self.optimizers))
        """The parts that act on a supernet."""
        require_composed(self.parts)
        if isinstance(model, Supernet):
            for stepper in self.steppers.values():
                model.correct_steps(stepper.optimizer)
        self._annealed: list[Any] = [module for module in self._evaluation.modules if hasattr(module, "on_progress")]
        if steppers is None:
            self.check()

    @property
    def optimizers(self) -> dict[str, Optimizer]:
        """The optimizer of each level."""
        return {name: stepper.optimizer for name, stepper in self.steppers.items()}

    @property
    def skipped(self) -> dict[str, int]:
        """Steps not taken because a loss, a gradient or a result was not finite, by level."""
        return {name: stepper.skipped for name, stepper in self.steppers.items()}

    def check(self, after: int = -1) -> None:
        """Evaluate each loss and compute each hypergradient once, without a trace.

        Args:
            after: levels respond as they do after this search step, which decides about the batches that they read.

        Raises:
            ConfigError: a level or a decision affects no loss, or a hypergradient cannot be computed.
        """
        self._set_progress(0)
        require_influence(self._evaluation, self.owned)
        for name, methods in self._responses.methods.items():
            if any(not isinstance(method, FirstOrder) for method in methods.values()):
                with suppress(FlatError):  # a later step may find the level elsewhere
                    self._gradient(name, 0, after, methods)

    def step(self, k: int) -> dict[str, Moved]:
        """Take search step `k`: every level that is due moves, from the lowest to the highest.

        Each module with a method `on_progress(step, steps)` is told the step before. A step of a level is not finite
        if its loss or gradient is not, or if it leaves parameters, buffers or an optimizer's state with a norm that is
        not; such a step changes nothing.

        Returns:
            What each level that was due did, by name.

        Raises:
            DivergedError: a level's patience ended, or the run ended without a step of a level. All levels have had
                their turn by then, so that the state can be saved.
        """
        self._set_progress(k)
        self.batch.prepare([*self._reads(k), *(self._reads(k + 1) if k + 1 < self.steps else ())])
        moved: dict[str, Moved] = {}
        taken: dict[str, Parameters] = {}
        for name, level in self.levels.items():
            if level.due(k, self.steps):
                for inner in range(level.inner_steps):
                    moved[name] = self._move(name, k, inner, taken)
        for name, move in moved.items():
            if (stepper := self.steppers[name]).out_of_patience:
                if not stepper.back_off():
                    raise self._diverged(k)
                move.backoff = self.levels[name].backoff
        if k == self.steps - 1:
            self.require_moved()
        return moved

    def _reads(self, k: int) -> Iterator[tuple[str, int]]:
        """Split and index of the batches of the levels that move in search step `k`."""
        for level in self.levels.values():
            if level.due(k, self.steps):
                count = level.inner_steps * level.accumulate
                yield from ((level.split, index) for index in range(k * count, (k + 1) * count))

    def require_moved(self) -> None:
        """Raise `DivergedError` if a level skipped every step that it had in the run, or if its patience has ended.

        A run whose patience ends in its last step has no step left that would say so once it is resumed.
        """
        last = self.steps - 1
        due = {name: level.moves(last, self.steps) * level.inner_steps for name, level in self.levels.items()}
        for name, count in due.items():
            if (stepper := self.steppers[name]).out_of_patience or (count and stepper.in_a_row == count):
                raise self._diverged(last)

    def skipped_batches(self, k: int) -> dict[str, list[Any]]:
        """The batches that the latest step of each level read, as of search step `k`, if it was skipped."""
        found = {}
        for name, level in self.levels.items():
            if self.steppers[name].in_a_row:
                step, inner = level.after(k, self.steps, -1)
                first = (step * level.inner_steps + inner) * level.accumulate
                found[name] = [self.batch(level.split, first + part) for part in range(level.accumulate)]
        return found

    def gradient(self, name: str, k: int, responses: Methods | None = None) -> tuple[Tensor, Parameters]:
        """A level's loss with its regularizers, and its gradient through the responses of the levels below.

        No parameter, buffer, optimizer or random state changes.

        Args:
            name: of the level.
            k: the search step.
            responses: methods in place of the configured ones, by the level that responds.
        """
        self._set_progress(k)
        found = self._gradient(name, k, k, {**self._responses.methods[name], **(responses or {})})
        return found.loss, found.parameters

    def direct_gradient(self, name: str, k: int) -> Parameters:
        """The first-order gradient `F_a` of a level's loss, without regularizers; otherwise as `gradient`."""
        self._set_progress(k)
        found = self._gradient(name, k, k, {})
        return {p: found.parts["loss"].get(p, value) for p, value in found.parameters.items()}

    def response_gradient(self, name: str, k: int, responses: Methods) -> Parameters:
        """What responses by these methods add to the gradient, `F_r dr/da`; otherwise as `gradient`."""
        self._set_progress(k)
        found = self._gradient(name, k, k, responses)
        return {p: found.added.get(p, torch.zeros_like(value)) for p, value in found.parameters.items()}

    def mean(self, evaluate: Callable[[Any], Tensor], batch: Any) -> Tensor:
        """What `evaluate` returns for a batch, a mean over its samples; ranks compute their shares."""
        return self._evaluation.mean(evaluate, batch)

    def state_dict(self) -> dict[str, Any]:
        """The state of the optimizers, and the counts of skipped steps, as plain data."""
        freezing = {name: freezer.state_dict() for name, freezer in self.freezers.items()}
        return {
            "optimizers": {name: stepper.optimizer.state_dict() for name, stepper in self.steppers.items()},
            "skipped": {name: stepper.skipped for name, stepper in self.steppers.items()},
            "in_a_row": {name: stepper.in_a_row for name, stepper in self.steppers.items()},
            "since": {name: stepper.since for name, stepper in self.steppers.items()},
            "forgiven": {name: stepper.forgiven for name, stepper in self.steppers.items() if stepper.backed_off},
            **({"freezing": freezing} if freezing else {}),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for name, stepper in self.steppers.items():
            stepper.optimizer.load_state_dict(state["optimizers"][name])
            stepper.skipped = state["skipped"][name]
            stepper.in_a_row, stepper.since = state["in_a_row"][name], state["since"][name]
            forgiven = state.get("forgiven", {})  # earlier versions had none
            stepper.backed_off, stepper.forgiven = name in forgiven, forgiven.get(name, 0)
        for name, freezer in self.freezers.items():
            freezer.load_state_dict(state["freezing"][name])

    def _methods(self, name: str) -> dict[str, Response]:
        """The methods by which levels below respond to a level; raises `ConfigError` if one cannot take its steps."""
        found = {}
        for below, entry in self.levels[name].hypergradient.items():
            method = create_response(entry, f"level '{name}': hypergradient.{below}")
            if getattr(method, "unrolls", False):
                rule_of(self.steppers[below].optimizer, f"level '{name}', response of '{below}' by '{name_of(method)}'")
            found[below] = method
        return found

    def _set_progress(self, k: int) -> None:
        step, steps = (k, self.steps) if self._elapsed is None else (self._elapsed + k, self._elapsed + k + 1)
        for module in self._annealed:
            module.on_progress(step, steps)

    def _move(self, name: str, k: int, inner: int, taken: dict[str, Parameters]) -> Moved:
        """Take one step of a level; `taken` receives its gradient if a level above reuses it."""
        stepper = self.steppers[name]
        lowest = name == next(iter(self.levels))  # its own evaluations move batch-norm buffers, no others do
        before = copied(self._evaluation.buffers()) if lowest else {}
        reused = self._responses.reused(name, k)
        watched = {below: freezer for below, freezer in self.freezers.items() if freezer.above == name}
        also = [*reused, *(p for freezer in watched.values() for p in freezer.watched())]
        found = self._responses.gradient(name, k, inner, also=also, taken=taken, moves_buffers=lowest)
        if lowest:
            self._evaluation.join_buffers()
        loss, terms, whole, parts, _ = found
        gradients = {p: whole[p] for p in stepper.moving}
        norms = foreach_norm(list(gradients.values()))
        size = torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros_like(loss)
        norm, total, *values = torch.stack([size, loss, *terms.values()]).tolist()  # a level waits for the device once
        moved = Moved(total, norm, dict(zip(terms, values, strict=True)))
        finite = math.isfinite(norm) and math.isfinite(moved.loss)
        arch = {p: stepper.parameters[p].detach().clone() for p in parts["loss"]}
        if finite and stepper.take(k, gradients, norm, self._evaluation.finite_buffers):
            if arch:
                scale, decayed = stepper.clipping(norm), functools.partial(decay_of, stepper.optimizer)
                moved.parts = {part: {p: scale * g for p, g in each.items()} for part, each in parts.items()}
                moved.parts["decay"] = {p: decayed(stepper.parameters[p], value) for p, value in arch.items()}
            if reused:
                taken[name] = whole
            if name in self.freezers:
                self.freezers[name].trained(whole)
            for below, freezer in watched.items():
                if newly := freezer.validated(whole):
                    moved.frozen[below] = newly
            return moved
        buffers = self._evaluation.buffers()
        for b, value in before.items():
            buffers[b].copy_(value)
        stepper.skip(k)
        return moved

    def _gradient(self, name: str, k: int, after: int, methods: Methods) -> Gradient:
        """The gradient of a level; the levels below respond as they do after search step `after`."""
        try:
            with self._evaluation.random_kept():
                return self._responses.gradient(name, k, methods=methods, after=after)
        except RuntimeError as error:
            if (operation := not_differentiable(error)) is None:
                raise
            if len(methods) > 1:
                for below, method in methods.items():
                    self._gradient(name, k, after, {below: method})
                raise
            ((below, method),) = methods.items()
            raise ConfigError(
                f"level '{name}': hypergradient.{below} ({name_of(method)}) must differentiate the gradient of"
                f" {operation}, which torch cannot. Use finite_difference, gauss_newton or first_order, or another"
                " operation"
            ) from error

    def _diverged(self, k: int) -> DivergedError:
        return DivergedError(diagnosis(self._evaluation, self.steppers, self._responses.methods, k))


def _configured(model: nn.Module, levels: Mapping[str, Level], steps: int) -> dict[str, Stepper]:
    """The steppers that levels describe by their `parameters` and `optimizer`."""
    named = trainable(model)
    steppers = {}
    for name, owned in assign(levels, list(named)).items():
        parameters = {p: named[p] for p in owned}
        optimizer = kind("optimizer").create(levels[name].optimizer, f"level '{name}': optimizer", parameters.values())
        steppers[name] = Stepper(levels[name], optimizer, parameters, steps)
    return steppers


def _ahead(name: str, methods: Mapping[str, Methods]) -> int:
    responses = (each[name] for each in methods.values() if name in each)
    reading = (each for each in responses if not isinstance(each, FirstOrder | Repeated))
    return max((0, *(getattr(each, "steps", 1) for each in reading)))
