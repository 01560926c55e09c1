"""One step over any number of levels: plain training is one, DARTS two, TMICS three."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from nas.errors import ConfigError, DivergedError
from nas.finite import finite, in_range
from nas.hypergradient import Loss, Parameters, Repeated, Response, Step, name_of, response
from nas.hypergradient.dense import FlatError
from nas.hypergradient.first_order import FirstOrder
from nas.hypergradient.protocol import Part, constants, differentiate, leaves
from nas.hypergradient.step import virtual_step
from nas.hypergradient.twice import not_differentiable
from nas.levels import Level, Precision, assign
from nas.objective import TaskLoss, Terms, objective
from nas.probing import copied, in_mode, places, replaced, replayed, unmoved
from nas.reach import depends_on, require_decided, require_reached
from nas.regularize import ramp
from nas.task import placed
from nas.undo import remembered
from nas.watching import watching

Taken = dict[str, Parameters]
"""By level, the gradient that the step it has just taken descended."""

Respond = Callable[[Parameters, Parameters], Parameters]
"""(parameters that move, those that do not) to those of levels below that respond."""


@dataclass
class Moved:
    """What one level did in one search step."""

    loss: float
    """The loss, regularizers included."""
    gradient: float
    """Norm of the gradient before clipping."""
    terms: dict[str, float] = field(default_factory=dict)
    """What each regularizer added to the loss."""


class Multilevel:
    """Levels over one model, each moving only its own parameters.

    Args:
        model: the supernet, or any network; parameters that do not require a gradient belong to no level.
        levels: by name, from the lowest to the highest.
        losses: the task's losses by name.
        batch: a batch as a function of (split, index), the same at every call.
        steps: the number of search steps in all.
        arguments: what regularizers take besides the supernet, by name: `{"expected_cost": {"cost": costs(...)}}`.
        precision: of the evaluations; parameters, gradients and optimizers keep their own.

    Each loss is evaluated once at the start, and each hypergradient computed once. Raises `ConfigError` for levels that
    cannot work (see `nas.levels.assign` and `nas.reach.require_reached`), `UnknownNameError` for a loss, hypergradient
    or regularizer that does not exist, and what `batch` raises for a split that does not.
    """

    def __init__(
        self,
        model: nn.Module,
        levels: Mapping[str, Level],
        losses: Mapping[str, TaskLoss],
        batch: Callable[[str, int], Any],
        steps: int,
        arguments: Mapping[str, Mapping[str, Any]] | None = None,
        precision: Precision = "float32",
    ) -> None:
        self.model, self.precision = model, precision
        self.levels = dict(levels)
        self.steps = steps
        self._named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        # Found once, since to walk through all modules of a supernet takes as long as some of its operations.
        self._modules = list(model.modules())
        self._devices = sorted({p.device for p in model.parameters() if p.device.type == "cuda"}, key=str)
        self._places = places(self._named, self._modules)
        self._buffer_places = places(dict(model.named_buffers()), self._modules)
        # Others, such as the mask of an attention, never are.
        self._finite_buffers = [name for name, buffer in self._buffers().items() if in_range([buffer])]
        self.owned = assign(self.levels, list(self._named))
        self._objectives = {name: objective(model, name, levels[name], losses, arguments or {}) for name in levels}
        self._responses = {
            name: {below: _response(name, below, method) for below, method in level.hypergradient.items()}
            for name, level in self.levels.items()
        }
        self.optimizers = {
            name: levels[name].optimizer.build([self._named[p] for p in owned]) for name, owned in self.owned.items()
        }
        self.skipped = dict.fromkeys(self.levels, 0)
        """Steps not taken because a loss or gradient was not finite, by level."""
        self._in_a_row = dict.fromkeys(self.levels, 0)
        self._since = dict.fromkeys(self.levels, 0)
        """The search step at which the present row of steps not taken began, by level."""
        self._hearing: list[Any] = [module for module in self._modules if hasattr(module, "on_progress")]
        # Levels read the same batches again in the responses of one another.
        self._device = next(iter(self._named.values())).device
        kept = functools.lru_cache(maxsize=sum(self._held(name) for name in self.levels))
        self.batch = kept(lambda split, index: placed(batch(split, index), self._device))
        """The batches, on the device of the model."""
        self._tell(0)
        self._require_reached()
        self._require_differentiable()

    def step(self, k: int) -> dict[str, Moved]:
        """Search step `k`: every level that is due moves, from the lowest to the highest.

        A step that is not finite changes nothing: one whose loss or gradient is not, or that leaves parameters, buffers
        or an optimizer's state with a norm that is not. Raises `DivergedError` if a level's patience ends, or the run
        without a step of a level, once all levels have had their turn: what was reached can still be saved. Before,
        every module that has a method `on_progress(step, steps)` is told where the run is.
        """
        self._tell(k)
        moved = {}
        taken: Taken = {}
        for name, level in self.levels.items():
            if level.due(k, self.steps):
                for inner in range(level.inner_steps):
                    moved[name] = self._move(name, k, inner, taken)
        if any(self._in_a_row[name] >= self.levels[name].patience for name in moved):
            raise DivergedError(self._diagnosis(k))
        if k == self.steps - 1:
            self.require_moved()
        return moved

    def require_moved(self) -> None:
        """Raise `DivergedError` if none of the steps of a level that the run had was taken, since none was finite."""
        last = self.steps - 1
        due = {name: level.moves(last, self.steps) * level.inner_steps for name, level in self.levels.items()}
        if any(count and self._in_a_row[name] == count for name, count in due.items()):
            raise DivergedError(self._diagnosis(last))

    def gradient(self, name: str, k: int, responses: Mapping[str, Response] | None = None) -> tuple[Tensor, Parameters]:
        """A level's loss with its regularizers, and the gradient through the responses of the levels below.

        Nothing moves: no parameter, buffer, optimizer or random state. `responses` are other ones than configured, by
        the level that responds.
        """
        self._tell(k)
        return self._probe(name, k, k, {**self._responses[name], **(responses or {})})

    def _probe(self, name: str, k: int, taken: int, responses: Mapping[str, Response]) -> tuple[Tensor, Parameters]:
        """What `gradient` returns; the levels below respond as after search step `taken`."""
        respond = functools.partial(self._respond, name, responses, taken, {})
        try:
            with self._random_kept():
                loss, _, gradients = self._differentiate(name, k, 0, respond, probing=True)
        except RuntimeError as error:
            if (operation := not_differentiable(error)) is None:
                raise
            if len(responses) > 1:
                for below, method in responses.items():
                    self._probe(name, k, taken, {below: method})
                raise
            ((below, method),) = responses.items()
            raise ConfigError(
                f"level '{name}': hypergradient.{below} ({name_of(method)}) must differentiate the gradient of"
                f" {operation}, which torch cannot; use finite_difference, gauss_newton or first_order, or another"
                " operation"
            ) from error
        return loss, gradients

    def state_dict(self) -> dict[str, Any]:
        """Optimizer states and counts; the model's state is its own."""
        optimizers = {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}
        counts = {"skipped": dict(self.skipped), "in_a_row": dict(self._in_a_row), "since": dict(self._since)}
        return {"optimizers": optimizers, **counts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.skipped = dict(state["skipped"])
        self._in_a_row, self._since = dict(state["in_a_row"]), dict(state["since"])

    def _tell(self, k: int) -> None:
        for module in self._hearing:
            module.on_progress(k, self.steps)

    def _move(self, name: str, k: int, inner: int, taken: Taken) -> Moved:
        # Only the lowest level's own passes move batch-norm buffers.
        probing = name != next(iter(self.levels))
        buffers = {} if probing else copied(self._buffers())
        wanted = self._wanted(name, k)
        respond = functools.partial(self._respond, name, self._responses[name], k, taken)
        loss, terms, found = self._differentiate(name, k, inner, respond, wanted, probing=probing)
        gradients = {p: found[p] for p in self.owned[name]}
        size = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(gradients.values()))))
        norm, total, *parts = torch.stack([size, loss, *terms.values()]).tolist()  # the one time a level waits
        moved = Moved(total, norm, dict(zip(terms, parts, strict=True)))
        if math.isfinite(norm) and math.isfinite(moved.loss) and self._descend(name, k, gradients, norm):
            self._in_a_row[name] = 0
            if wanted:
                taken[name] = found
            return moved
        for b, value in buffers.items():
            self._buffers()[b].copy_(value)
        if not self._in_a_row[name]:
            self._since[name] = k
        self.skipped[name] += 1
        self._in_a_row[name] += 1
        return moved

    def _descend(self, name: str, k: int, gradients: Parameters, norm: float) -> bool:
        """Take a level's step unless what it leaves is not finite; whether it was taken."""
        level, optimizer = self.levels[name], self.optimizers[name]
        if level.clip is not None and norm + 1e-6 > level.clip:
            scaled = torch._foreach_mul(list(gradients.values()), level.clip / (norm + 1e-6))
            gradients = dict(zip(gradients, scaled, strict=True))
        for p, g in gradients.items():
            self._named[p].grad = g
        for group in optimizer.param_groups:
            group["lr"] = level.lr(k, self.steps)
        own = [self._named[p] for p in gradients]
        undo = remembered(optimizer)
        try:
            optimizer.step()
        except RuntimeError as error:  # a rate beyond the dtype
            undo()
            if "without overflow" not in str(error):
                raise
            return False
        finally:
            optimizer.zero_grad(set_to_none=True)
        states = [t for p in own for t in optimizer.state.get(p, {}).values() if isinstance(t, Tensor)]
        buffers = self._buffers()
        if in_range([*own, *states, *(buffers[b] for b in self._finite_buffers)]):
            return True
        undo()
        return False

    def _wanted(self, name: str, k: int) -> list[str]:
        """The parameters of levels above that reuse the gradient of a level's step `k`, which then has their part too.

        None where levels below respond to it: its step then descends more than the partial derivative of its loss.
        """
        due = (above for above, level in self.levels.items() if level.due(k, self.steps) and not self._responses[name])
        reusing = (above for above in due if getattr(self._responses[above].get(name), "reuse", False))
        return [p for above in reusing for p in self.owned[above]]

    def _differentiate(
        self, name: str, k: int, inner: int, respond: Respond, wanted: Sequence[str] = (), *, probing: bool
    ) -> tuple[Tensor, Terms, Parameters]:
        """A level's loss, the part of each regularizer in it, and its gradient; that of the parameters `wanted` too."""
        live: Parameters = {p: self._named[p] for p in (*self.owned[name], *wanted)}
        fixed = constants({p: v for p, v in self._named.items() if p not in live})
        answers = respond(live, fixed)
        answering = {p: v for p, v in answers.items() if v.requires_grad}
        # The gradient is whole, summed over all batches, before it enters a response: some are not linear in it.
        inputs = {**live, **leaves(answering)}
        values = {**fixed, **answers, **inputs}
        count = self.levels[name].accumulate
        gradient, losses, terms = list[Tensor](), list[Tensor](), Terms()
        for part in range(count):
            loss, terms = self._evaluate(name, values, self._inputs(name, k, inner, part), probing=probing)
            found = differentiate(loss / count, list(inputs.values()))
            gradient = [a + b for a, b in zip(gradient, found, strict=True)] if part else found
            losses.append(loss.detach())
        total, upper = gradient[: len(live)], gradient[len(live) :]
        if answering:
            answered = differentiate(list(answering.values()), list(live.values()), upper)
            total = [a + b for a, b in zip(total, answered, strict=True)]
        return torch.stack(losses).mean(), terms, dict(zip(live, total, strict=True))

    def _respond(
        self, name: str, responses: Mapping[str, Response], k: int, taken: Taken, live: Parameters, fixed: Parameters
    ) -> Parameters:
        """The parameters of levels below as functions of those of the level that moves (`live`), from the lowest up.

        Each responds to that level, and to the responses of the levels below it; not to those between it and that one.
        """
        answers: Parameters = {}
        replay = replayed(self._devices)
        for below in (each for each in self.levels if each in responses):
            own = {p: self._named[p] for p in self.owned[below]}
            others = {p: v for p, v in {**fixed, **live, **answers}.items() if p not in own}
            loss, step = self._coming(below, k, taken.get(below, {}), repeat=isinstance(responses[below], Repeated))
            try:
                answers |= responses[below](replace(loss, replay=replay), constants(own), others, step)
            except ConfigError as error:
                raise type(error)(f"level '{name}', response of '{below}': {error}") from error
        return answers

    def _coming(self, name: str, k: int, taken: Parameters, *, repeat: bool) -> tuple[Loss, Step]:
        """What a level would descend, and by which steps, after search step `k`, or once more if it is to `repeat`."""
        level = self.levels[name]

        def when(count: int) -> tuple[int, int]:
            return level.after(k, self.steps, -1 if repeat else count)

        def parts(count: int) -> list[Part]:
            return [functools.partial(part, count, number) for number in range(level.accumulate)]

        def part(count: int, number: int, own: Parameters, others: Parameters) -> Tensor:
            inputs = self._inputs(name, *when(count), number)
            return self._evaluate(name, {**others, **own}, inputs, probing=True)[0]

        # Beyond the end of the run the batches go on, and the rate stays the last one.
        rates = (level.lr(min(when(count)[0], self.steps - 1), self.steps) for count in itertools.count())
        own = {p: self._named[p] for p in self.owned[name]}
        step = virtual_step(self.optimizers[name], own, level.clip, rates)
        return Loss(parts(0), taken=taken if repeat else {}, later=parts), step

    def _inputs(self, name: str, k: int, inner: int, part: int) -> tuple[Any, float]:
        """The batch of a level at search step `k`, and the ramp of its regularizers."""
        level = self.levels[name]
        index = (k * level.inner_steps + inner) * level.accumulate + part
        return self.batch(level.split, index), ramp(k, self.steps, level.warmup)

    def _evaluate(
        self, name: str, values: Parameters, inputs: tuple[Any, float], *, probing: bool
    ) -> tuple[Tensor, Terms]:
        """A level's loss at the given parameters, and its terms; the model's buffers move unless `probing`."""
        kept = unmoved(self._buffer_places) if probing else nullcontext()
        autocast = torch.autocast(self._device.type, torch.bfloat16, enabled=self.precision == "bfloat16")
        in_place = replaced(self._places, values)
        with in_mode(self.model, self.levels[name].mode, self._modules), in_place, kept, autocast:
            return self._objectives[name](*inputs)

    def _held(self, name: str) -> int:
        """How many batches of a level are read more than once: those of a step, and of steps that responses look at."""
        responses = [methods[name] for methods in self._responses.values() if name in methods]
        return self.levels[name].accumulate * max((1, *(getattr(method, "steps", 1) for method in responses)))

    def _buffers(self) -> Parameters:
        """The buffers that the model has now, by name."""
        return {name: table[key] for name, table, key in self._buffer_places}

    def _require_reached(self) -> None:
        """Raise `ConfigError` for a level whose loss does not depend on it, or that no loss above depends on, and for a
        decision that its loss does not depend on."""
        seen: dict[str, set[str]] = {}
        by_loss: dict[str, set[str]] = {}
        values = leaves(self._named)
        with self._random_kept():
            for name, level in self.levels.items():
                inputs = self.batch(level.split, 0), 1.0
                if like := [each for each in seen if level.minimises_as(self.levels[each])]:
                    seen[name], by_loss[name] = seen[like[0]], by_loss[like[0]]
                else:
                    loss, terms = self._evaluate(name, values, inputs, probing=True)
                    seen[name] = depends_on(loss, values)
                    by_loss[name] = depends_on(loss, values, terms.values()) if terms else seen[name]
        require_reached(self.levels, self.owned, seen)
        require_decided(self.model, self.levels, self.owned, by_loss)

    def _require_differentiable(self) -> None:
        """Compute the hypergradient of each level once; raise `ConfigError` for one that no step could compute."""
        for name, responses in self._responses.items():
            if any(not isinstance(method, FirstOrder) for method in responses.values()):
                with suppress(FlatError):  # a later step may find the level elsewhere
                    self._probe(name, 0, -1, responses)  # of the batches just read

    def _diagnosis(self, k: int) -> str:
        """What went wrong, level by level from the lowest up, at the weights that the steps not taken have left."""
        concerned = [name for name, count in self._in_a_row.items() if count]
        asked = {below: name for name in concerned for below in self._responses[name]}
        found, broken = [], dict[str, None]()
        for name, level in self.levels.items():
            if name not in concerned and name not in asked:
                continue
            # Its last step, or the one that a level above looked at.
            when = level.after(k, self.steps, -1 if name in concerned else 0)
            for part in range(level.accumulate):
                loss, norm, origin = self._examined(name, self._inputs(name, *when, part))
                if origin or not math.isfinite(loss + norm):
                    break
            if origin == _BATCH:
                broken[f"'{level.split}'"] = None
            origin = f", first in {origin}" if origin else ""
            if name in concerned:
                if math.isfinite(loss + norm):
                    origin = "; its step leaves the range of numbers"
                row = f"level '{name}' since step {self._since[name]}: {self._in_a_row[name]} steps in a row not finite"
                found.append(f"{row} (loss {loss:g}, gradient norm {norm:g}{origin})")
            elif not math.isfinite(loss + norm):
                found.append(f"level '{name}', to which '{asked[name]}' has it respond: loss {loss:g}{origin}")
        remedy = f"try a learning rate below {self.levels[concerned[0]].optimizer.lr:g}, or 'clip'"
        if broken:
            remedy = f"look at the data: the task's batches of {', '.join(broken)} must be finite"
        return "; ".join([*found, remedy])

    def _examined(self, name: str, inputs: tuple[Any, float]) -> tuple[float, float, str]:
        """A level's loss by itself, the norm of its gradient, and where the first value that is not finite is from."""
        values = leaves(self._named)
        with self._random_kept(), watching(self.model) as seen:
            loss = self._evaluate(name, values, inputs, probing=True)[0]
            gradient = differentiate(loss, [values[p] for p in self.owned[name]], retain_graph=True)
            origin = _BATCH if not finite(inputs[0]) else seen.origin(loss)
        return loss.item(), math.hypot(*(g.norm().item() for g in gradient)), origin

    def _random_kept(self) -> AbstractContextManager[None]:
        """Leave torch's random state on the model's devices as it was."""
        return torch.random.fork_rng(self._devices)


_BATCH = "its batch"


def _response(level: str, below: str, arguments: Mapping[str, Any]) -> Response:
    if "name" not in arguments:
        raise ConfigError(
            f"level '{level}': hypergradient.{below} has no 'name' (first_order, unrolled, implicit, ...)"
        )
    try:
        return response(**arguments)
    except (TypeError, ConfigError) as error:
        raise ConfigError(f"level '{level}': hypergradient.{below}: {error}") from error
