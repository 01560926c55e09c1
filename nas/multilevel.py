"""One step over any number of levels: plain training is one, DARTS two, TMICS three."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nas.errors import ConfigError, DivergedError, UnknownNameError
from nas.hypergradient import Parameters, Response, response
from nas.hypergradient.step import virtual_step
from nas.levels import Level, assign
from nas.regularize import Regularizer, Term, penalty, ramp, regularizer
from nas.supernet import Supernet

TaskLoss = Callable[[nn.Module, Any], Tensor]
"""A loss of the task: (network or supernet, batch) to a scalar."""

Terms = dict[str, Tensor]

PATIENCE = 10
"""Steps of one level in a row with a non-finite loss or gradient before the run stops."""


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

    Raises `ConfigError` for levels that cannot work (see `nas.levels.assign`), `UnknownNameError` for a loss,
    hypergradient or regularizer that does not exist, and what `batch` raises for a split that does not.
    """

    def __init__(
        self,
        model: nn.Module,
        levels: Mapping[str, Level],
        losses: Mapping[str, TaskLoss],
        batch: Callable[[str, int], Any],
        steps: int,
        arguments: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.model = model
        self.levels = dict(levels)
        self.steps = steps
        self._named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        # Found once, since to walk through all modules of a supernet takes as long as some of its operations.
        self._aliases = _first_names(model.named_parameters(remove_duplicate=False), self._named)
        buffers = dict(model.named_buffers())
        self._buffer_aliases = _first_names(model.named_buffers(remove_duplicate=False), buffers)
        self._buffer_places = {b: (model.get_submodule(b.rpartition(".")[0]), b.rpartition(".")[2]) for b in buffers}
        self.owned = assign(self.levels, list(self._named))
        self._objectives = {name: _objective(model, name, levels[name], losses, arguments or {}) for name in levels}
        self._responses = {
            name: {b: _response(name, b, level.hypergradient[b]) for b in self.levels if b in level.hypergradient}
            for name, level in self.levels.items()
        }
        self.optimizers = {
            name: levels[name].optimizer.build([self._named[p] for p in owned]) for name, owned in self.owned.items()
        }
        self.skipped = dict.fromkeys(self.levels, 0)
        """Steps not taken because a loss or gradient was not finite, by level."""
        self._in_a_row = dict.fromkeys(self.levels, 0)
        # Levels read the same batches again in the responses of one another.
        self._batch = functools.lru_cache(maxsize=len(self.levels))(batch)
        for level in self.levels.values():
            self._batch(level.split, 0)  # a split that does not exist is an error now, not after the warm-up

    def step(self, k: int) -> dict[str, Moved]:
        """Search step `k`: every level that is due moves, from the lowest to the highest.

        Where a level's loss or gradient is not finite, its step changes nothing. Raises `DivergedError` after several
        such steps in a row.
        """
        self._at(k)
        moved = {}
        for name, level in self.levels.items():
            if level.due(k, self.steps):
                for inner in range(level.inner_steps):
                    moved[name] = self._move(name, k, inner)
        return moved

    def gradient(self, name: str, k: int, inner: int = 0) -> tuple[Tensor, Parameters]:
        """A level's loss with its regularizers, and the gradient through the responses of the levels below.

        Nothing moves: no parameter, buffer, optimizer or random state.
        """
        self._at(k)
        with self._random_kept():
            loss, _, gradients = self._differentiate(name, k, inner, probing=True)
        return loss, gradients

    def state_dict(self) -> dict[str, Any]:
        """Optimizer states and counts; the model's state is its own."""
        optimizers = {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}
        return {"optimizers": optimizers, "skipped": dict(self.skipped), "in_a_row": dict(self._in_a_row)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.skipped = dict(state["skipped"])
        self._in_a_row = dict(state["in_a_row"])

    def _at(self, k: int) -> None:
        if isinstance(self.model, Supernet):
            self.model.at(k, self.steps)

    def _move(self, name: str, k: int, inner: int) -> Moved:
        level, optimizer = self.levels[name], self.optimizers[name]
        # Only the lowest level's own passes move batch-norm buffers.
        probing = name != next(iter(self.levels))
        buffers = {} if probing else {b: buffer.clone() for b, buffer in self._buffers().items()}
        loss, terms, gradients = self._differentiate(name, k, inner, probing=probing)
        norm = torch.linalg.vector_norm(torch.stack([g.norm() for g in gradients.values()])).item()
        moved = Moved(loss.item(), norm, {term: value.item() for term, value in terms.items()})
        if not (math.isfinite(norm) and math.isfinite(moved.loss)):
            for b, value in self._buffers().items():
                value.copy_(buffers.get(b, value))
            self._skip(name, k, moved)
            return moved
        self._in_a_row[name] = 0
        scale = min(1.0, level.clip / (norm + 1e-6)) if level.clip is not None else 1.0
        for p, g in gradients.items():
            self._named[p].grad = g * scale
        for group in optimizer.param_groups:
            group["lr"] = level.lr(k, self.steps)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return moved

    def _skip(self, name: str, k: int, moved: Moved) -> None:
        self.skipped[name] += 1
        self._in_a_row[name] += 1
        if self._in_a_row[name] >= PATIENCE:
            raise DivergedError(
                f"level '{name}' at step {k}: loss {moved.loss:g}, gradient norm {moved.gradient:g}: not finite"
                f" {PATIENCE} times in a row; try a learning rate below {self.levels[name].optimizer.lr:g}, or 'clip'"
            )

    def _differentiate(self, name: str, k: int, inner: int, *, probing: bool) -> tuple[Tensor, Terms, Parameters]:
        """A level's loss, the part of each regularizer in it, and its gradient."""
        live = {p: self._named[p] for p in self.owned[name]}
        values = {p: v if p in live else v.detach() for p, v in self._named.items()}
        with self._random_kept():  # with or without responses, the level's own pass draws the same numbers
            values |= self._respond(name, k, values)
        loss, terms = self._evaluate(name, values, k, inner, probing=probing)
        if not loss.requires_grad:
            raise ConfigError(f"level '{name}': the loss '{self.levels[name].loss}' depends on none of its parameters")
        gradients = torch.autograd.grad(loss, list(live.values()), allow_unused=True, materialize_grads=True)
        return loss.detach(), terms, dict(zip(live, gradients, strict=True))

    def _respond(self, name: str, k: int, values: Parameters) -> Parameters:
        """The parameters of the levels below as functions of this level's, from the lowest up.

        Each responds to this level, and to the responses of the levels below it; not to those between it and this one.
        """
        answered: Parameters = {}
        for below, method in self._responses[name].items():
            level = self.levels[below]
            own = {p: self._named[p] for p in self.owned[below]}

            def loss(current: Parameters, below: str = below, known: Parameters = values | answered) -> Tensor:
                return self._evaluate(below, known | current, k, 0, probing=True)[0]

            step = virtual_step(self.optimizers[below], own, level.clip, level.lr(k, self.steps))
            answered |= method(loss, {p: v.detach() for p, v in own.items()}, step)
        return answered

    def _evaluate(self, name: str, values: Parameters, k: int, inner: int, *, probing: bool) -> tuple[Tensor, Terms]:
        """A level's loss at the given parameters, and its terms; the model's buffers move unless `probing`."""
        level = self.levels[name]
        state = {f"model.{alias}": values[p] for alias, p in self._aliases.items()}
        if probing:
            clones = {b: buffer.clone() for b, buffer in self._buffers().items()}
            state |= {f"model.{alias}": clones[b] for alias, b in self._buffer_aliases.items()}
        inputs = (self._batch(level.split, k * level.inner_steps + inner), ramp(k, self.steps, level.warmup))
        with _mode(self.model, level.mode):
            evaluated: tuple[Tensor, Terms] = functional_call(self._objectives[name], state, inputs, tie_weights=False)
        return evaluated

    def _buffers(self) -> Parameters:
        """The buffers that the model has now, by name."""
        return {b: getattr(module, key) for b, (module, key) in self._buffer_places.items()}

    def _random_kept(self) -> AbstractContextManager[None]:
        """Leave torch's random state on the model's devices as it was."""
        devices = {p.device for p in self.model.parameters() if p.device.type == "cuda"}
        return torch.random.fork_rng(devices)


class _Objective(nn.Module):
    """What a level minimises as one module around the model, so that `functional_call` can replace its parameters."""

    def __init__(self, model: nn.Module, loss: TaskLoss, terms: Mapping[Term, Regularizer]) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.terms = terms

    def forward(self, batch: Any, ramped: float) -> tuple[Tensor, Terms]:
        model: Any = self.model
        terms = {term.name: penalty(model, {term: value}, ramped) for term, value in self.terms.items()}
        return sum(terms.values(), start=self.loss(model, batch)), terms


def _objective(
    model: nn.Module,
    name: str,
    level: Level,
    losses: Mapping[str, TaskLoss],
    arguments: Mapping[str, Mapping[str, Any]],
) -> _Objective:
    if level.loss not in losses:
        raise UnknownNameError(f"loss of level '{name}'", level.loss, losses)
    if level.regularizers and not isinstance(model, Supernet):
        raise ConfigError(f"level '{name}': regularizers act on arch parameters, which only a supernet has")
    terms = {term: regularizer(term.name, **arguments.get(term.name, {})) for term in level.regularizers}
    return _Objective(model, losses[level.loss], terms)


def _response(level: str, below: str, arguments: Mapping[str, Any]) -> Response:
    if "name" not in arguments:
        raise ConfigError(
            f"level '{level}': hypergradient.{below} has no 'name' (first_order, unrolled, implicit, ...)"
        )
    try:
        return response(**arguments)
    except TypeError as error:
        raise ConfigError(f"level '{level}': hypergradient.{below}: {error}") from error


def _first_names(named: Iterable[tuple[str, Tensor]], first: Mapping[str, Tensor]) -> dict[str, str]:
    """The name in `first` of each tensor, by each of its names: tied weights have several."""
    names = {id(tensor): name for name, tensor in first.items()}
    return {alias: names[id(tensor)] for alias, tensor in named if id(tensor) in names}


@contextmanager
def _mode(model: nn.Module, mode: str) -> Iterator[None]:
    """Run in train or eval mode, and leave the model as it was."""
    before = {module: module.training for module in model.modules()}
    if set(before.values()) == {mode == "train"}:
        yield
        return
    model.train(mode == "train")
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training
