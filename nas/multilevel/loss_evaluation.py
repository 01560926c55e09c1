"""Evaluate what levels minimize, a loss of the task plus the level's regularizers, without side effects."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nas.distributed.ranks import count
from nas.distributed.reduction import spread, summed
from nas.distributed.share import Share
from nas.distributed.whole_batch import seen_as_whole
from nas.errors import ConfigError, UnknownNameError
from nas.hypergradient.response import Parameters
from nas.kernels.evaluation import in_mode, places, replaced, replayed, unmoved
from nas.kernels.finite import in_range
from nas.kernels.samples import sample_count, samples_of
from nas.kernels.torch_internals import tree_leaves
from nas.multilevel.level import Level, Precision
from nas.multilevel.regularizers import Resources, Term, create_terms, ramp
from nas.supernet import Supernet

TaskLoss = Callable[..., Tensor]
"""A loss of the task: (network or supernet, batch) to a scalar. If it has a parameter `progress`, it is given the share
in [0, 1) of the run's steps that are done as a keyword argument."""

Terms = dict[str, Tensor]
"""What each regularizer adds to a loss, by name."""

AFTER = (1.0, 1.0)
"""The span of a training that follows the run."""


class Evaluated(NamedTuple):
    """A level's loss at some values of the parameters."""

    loss: Tensor
    """The task's loss, a scalar."""
    objective: Tensor
    """What the level minimizes, a scalar: the loss, or its logarithm if the level is `scale_free`, plus all terms."""
    terms: Terms


class Inputs(NamedTuple):
    """What a loss is evaluated on."""

    batch: Any
    ramped: float
    """The ramp of the regularizers, in [0, 1]."""
    turn: int = 0
    """The number of the forward pass among those of a step (see `Supernet.passes`)."""
    progress: float = 0.0
    """The share of the run's steps that are done, in [0, 1)."""


class LossEvaluation:
    """Evaluates the loss of each level at given values of the parameters.

    For the time of one evaluation the model has these values in place of its parameters, the level's mode and the
    precision; afterwards it is as before. Its buffers move only if the caller asks for it.

    On several ranks each evaluates the loss of its share of the batch. The loss and all of its derivatives are those of
    the whole batch (see `nas.distributed.reduction`); for this a loss must be a mean over samples.

    Args:
        model: the supernet, or any network. Only parameters that require a gradient take part.
        levels: by name, from the lowest to the highest.
        losses: the task's losses by name.
        batch: a batch as a function of (split, index), on the model's device.
        steps: the number of search steps.
        resources: what regularizers may ask for.
        precision: of the operations; parameters and gradients keep their own.
        span: where in the run its first step begins and its last one ends, as shares; a stage is a part of a run.
        groups: parameters whose gradients are asked for together, such as those of a level.
        synchronized: whether batch norms use the samples of all ranks.

    Raises:
        UnknownNameError: a loss or a regularizer does not exist.
        ConfigError: a level has regularizers and the model is not a supernet.
    """

    def __init__(
        self,
        model: nn.Module,
        levels: Mapping[str, Level],
        losses: Mapping[str, TaskLoss],
        batch: Callable[[str, int], Any],
        steps: int,
        resources: Resources,
        precision: Precision,
        span: tuple[float, float] = (0.0, 1.0),
        groups: Sequence[Collection[str]] = (),
        synchronized: bool = False,
    ) -> None:
        self._span, self._groups, self._synchronized = span, groups, synchronized
        self.model, self.levels, self.batch, self.steps = model, levels, batch, steps
        self.parameters = trainable(model)
        self._passes = model.passes if isinstance(model, Supernet) else 1
        self._in_pass = model.in_pass if isinstance(model, Supernet) else nullcontext
        self._probed = model.probed if isinstance(model, Supernet) and model.wrappers else nullcontext
        self._losses: dict[str, TaskLoss] = {}
        self._following: set[str] = set()
        self._terms: dict[str, list[Term]] = {}
        for name, level in levels.items():
            if level.loss not in losses:
                raise UnknownNameError(f"loss of level '{name}'", level.loss, losses)
            if level.regularizers and not isinstance(model, Supernet):
                found = type(model).__name__
                raise ConfigError(f"level '{name}': regularizers need the arch parameters of a Supernet, got a {found}")
            self._losses[name] = losses[level.loss]
            if follows_progress(losses[level.loss]):
                self._following.add(name)
            self._terms[name] = create_terms(level.regularizers, f"level '{name}': regularizers", resources)
        # Listed once: a walk through all modules of a supernet takes as long as some of its operations.
        self.modules = list(model.modules())
        self._places = places(self.parameters, self.modules)
        self._buffer_places = places(dict(model.named_buffers()), self.modules)
        # Some, such as the mask of an attention, never are.
        self._finite_buffers = [name for name, buffer in self.buffers().items() if in_range([buffer])]
        self._devices = sorted({p.device for p in model.parameters() if p.device.type == "cuda"}, key=str)
        device = next(iter(self.parameters.values())).device
        self._autocast = (device.type, torch.bfloat16, precision == "bfloat16")

    def loss(self, name: str, values: Parameters, inputs: Inputs, *, moves_buffers: bool) -> Evaluated:
        """A level's loss, and what each regularizer adds to it, at `values` of all parameters."""
        buffers = nullcontext() if moves_buffers else unmoved(self._buffer_places)
        device, dtype, enabled = self._autocast
        mode = in_mode(self.model, self.levels[name].mode, self.modules)
        with mode, replaced(self._places, values), buffers, torch.autocast(device, dtype, enabled=enabled):
            model: Any = self.model
            terms = {term.name: term(model, inputs.ramped) for term in self._terms[name]}
            progress = {"progress": inputs.progress} if name in self._following else {}
            evaluate = functools.partial(self._losses[name], model, **progress)
            over_ranks = self._over_ranks(evaluate, inputs.batch, values)
            with self._in_pass(inputs.turn), over_ranks as mean, self._probed(functools.partial(self._probe, mean)):
                loss = mean()
        start = loss.log() if self.levels[name].scale_free and isinstance(loss, Tensor) else loss
        if self._passes > 1:
            loss, start = self._passes * loss, self._passes * start
        return Evaluated(loss, sum(terms.values(), start=start), terms)

    def _probe(self, evaluate: Callable[[], Tensor]) -> Tensor:
        """A loss in eval mode, without side effects."""
        with in_mode(self.model, "eval", self.modules), unmoved(self._buffer_places), self.random_kept():
            return evaluate()

    def mean(self, evaluate: Callable[[Any], Tensor], batch: Any) -> Tensor:
        """What `evaluate` returns for a batch, a mean over its samples, at the model's parameters, by all ranks."""
        with self._over_ranks(evaluate, batch, dict(self.parameters)) as mean:
            return mean()

    @contextmanager
    def _over_ranks(
        self, evaluate: Callable[[Any], Tensor], batch: Any, values: Parameters
    ) -> Iterator[Callable[[], Tensor]]:
        """A context in which `evaluate` sees this rank's samples, and what returns its mean over all samples."""
        if count() == 1:
            yield functools.partial(evaluate, batch)
            return
        share = Share.own(sample_count(batch))
        own = functools.partial(evaluate, samples_of(batch, share.begin, share.end))
        with replaced(self._places, spread(values, self._groups)), seen_as_whole(share, self._synchronized):
            yield lambda: share.mean(own())

    @torch.no_grad()
    def join_buffers(self) -> None:
        """Give all ranks the mean of their floating-point buffers, which moved by the samples of each."""
        own = [] if count() == 1 else [buffer for buffer in self.buffers().values() if buffer.is_floating_point()]
        if own:  # in double precision the mean of equal numbers is the same number
            for buffer, total in zip(own, summed(*(buffer.double() for buffer in own)), strict=True):
                buffer.copy_(total / count())

    def parts(self, name: str) -> int:
        """Of how many parts a level's loss is the mean: its micro-batches, each in every forward pass of a step.

        With several passes a part is their number times the loss of one, since a step descends the sum over passes.
        """
        return self.levels[name].accumulate * self._passes

    def traced(self, name: str, values: Parameters, inputs: Inputs) -> tuple[Tensor, list[Tensor]]:
        """What a level minimizes at `values` of all parameters, and the outputs of all calls of the model."""
        outputs: list[Tensor] = []

        def collect(_: nn.Module, __: Any, output: Any) -> None:
            outputs.extend(leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor))

        handle = self.model.register_forward_hook(collect)
        try:
            return self.loss(name, values, inputs, moves_buffers=False).objective, outputs
        finally:
            handle.remove()

    def inputs(self, name: str, k: int, inner: int = 0, part: int = 0) -> Inputs:
        """What a level's loss is evaluated on: part `part` of its inner step `inner` in search step `k`."""
        level = self.levels[name]
        batch, turn = divmod(part, self._passes)
        index = (k * level.inner_steps + inner) * level.accumulate + batch
        begin, end = self._span
        progress = begin + (end - begin) * min(k / self.steps, 1.0)
        ramped = 1.0 if self._span == AFTER else ramp(k, self.steps, level.warmup)
        return Inputs(self.batch(level.split, index), ramped, turn, progress)

    def buffers(self) -> Parameters:
        """The buffers that the model has now, by name."""
        return {name: table[key] for name, table, key in self._buffer_places}

    def finite_buffers(self) -> list[Tensor]:
        """The buffers whose values must stay finite, as they are now."""
        buffers = self.buffers()
        return [buffers[name] for name in self._finite_buffers]

    def random_kept(self) -> AbstractContextManager[None]:
        """A context that leaves torch's random state on the model's devices as it was."""
        return torch.random.fork_rng(self._devices)

    def random_replayed(self) -> Callable[[], AbstractContextManager[None]]:
        """Contexts that each draw the random numbers that would be drawn now; see `nas.kernels.evaluation.replayed`."""
        return replayed(self._devices)


def arch_parameters(model: nn.Module) -> set[str]:
    """The names of a supernet's arch parameters; none of any other network."""
    return {f"arch.{label}" for label in model.arch} if isinstance(model, Supernet) else set()


def follows_progress(loss: TaskLoss) -> bool:
    """Whether a loss depends on how much of the run is done: whether it has a parameter `progress`."""
    try:
        return "progress" in inspect.signature(loss).parameters
    except ValueError:  # of some functions that are not written in Python
        return False


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that require a gradient, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
