"""Levels for a training loop of one's own: any torch optimizers, any data loaders."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from torch import Tensor, nn
from torch.optim import Optimizer

from nas.cost.space_cost import costs
from nas.errors import ConfigError, DivergedError, InvalidFileError, UnknownNameError
from nas.files import convert
from nas.hypergradient.methods import create_response
from nas.hypergradient.response import Parameters
from nas.kernels.torch_internals import tree_flatten
from nas.multilevel.dependence import responding
from nas.multilevel.level import WARMUP, Level, Precision, assign
from nas.multilevel.loss_evaluation import TaskLoss, follows_progress, trainable
from nas.multilevel.multilevel import Moved, Multilevel
from nas.multilevel.regularizers import Resources
from nas.multilevel.stepper import Stepper
from nas.relaxation.sampling import Sampling
from nas.supernet import Supernet


@dataclass(frozen=True)
class LoopLevel:
    """One level of `Levels`; `level` makes it."""

    optimizer: Optimizer
    loss: TaskLoss
    config: Level
    scheduled: bool
    """Whether the level sets the optimizer's learning rate."""


def level(
    optimizer: Optimizer,
    *,
    loss: TaskLoss,
    hypergradient: Mapping[str, str | Mapping[str, Any]] | None = None,
    regularizers: Sequence[Mapping[str, Any]] = (),
    freezing: str | Mapping[str, Any] | None = None,
    clip: float | None = None,
    schedule: str | Mapping[str, Any] | None = None,
    period: int = 1,
    warmup: float = 0.0,
    inner_steps: int = 1,
    accumulate: int = 1,
    patience: int = 10,
    mode: Literal["train", "eval"] = "train",
    scale_free: bool = False,
) -> LoopLevel:
    """Describe one level of `nas.Levels`: which parameters minimize which loss, and how.

    Args:
        optimizer: a torch optimizer over the parameters that the level moves. Its options, groups and learning rates,
            and torch's learning-rate schedulers, work as usual.
        loss: a function `loss(net, batch)` that returns a scalar.
        hypergradient: for levels below, by name: the method by which their response enters this level's gradient
            (`"unrolled"`, or `{"name": "neumann", "terms": 5}`); other levels below stay fixed (first order). Methods
            of several steps read a batch for each; methods of one step read the batch that the level below has just
            descended. `batches` (`next` or `repeat`) changes this.
        regularizers: terms on the arch parameters that are added to the loss: `[{"name": "entropy", "weight": 0.1}]`.
        freezing: which candidate operations of the level stop learning, and when: `"oles"`.
        clip: the largest norm of the gradient.
        schedule: `"cosine"`, in place of a scheduler of torch; it starts at the optimizer's learning rate.
        period: the level moves in every `period`-th step.
        warmup: share of the steps before the level moves, in [0, 1).
        inner_steps: steps of the level in one step of all levels.
        accumulate: batches whose mean loss one step of the level descends.
        patience: number of skipped steps in a row, not finite, after which `Levels.step` raises `DivergedError`.
        mode: the network's mode while the loss is evaluated.
        scale_free: minimize the logarithm of the loss, so that the course does not depend on the loss's scale.

    Raises:
        ConfigError: a value is out of range, or the optimizer cannot be used: it needs a closure, or it has several
            learning rates and the level a schedule.
        UnknownNameError: a hypergradient method, a regularizer or a schedule does not exist.

    Example:
        >>> net = nas.Supernet("digits")
        >>> def loss(net, batch):
        ...     images, labels = batch
        ...     return nn.functional.cross_entropy(net(images), labels)
        >>> lower = nas.level(torch.optim.SGD(net.weights(), 0.025, momentum=0.9), loss=loss, clip=5.0)
    """
    if not isinstance(optimizer, Optimizer):
        raise ConfigError(f"nas.level: 'optimizer' must be a torch optimizer, got {optimizer!r}")
    if not callable(loss):
        raise ConfigError(f"nas.level: 'loss' must be a function of (net, batch), got {loss!r}")
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        found = type(optimizer).__name__
        raise ConfigError(f"nas.level: 'optimizer' must take steps without a closure, got {found}")
    rates = [float(group.get("lr", 0.0)) for group in optimizer.param_groups]
    if schedule is not None and len(set(rates)) > 1:
        found = ", ".join(f"{rate:g}" for rate in rates)
        raise ConfigError(
            f"nas.level: 'schedule' needs an optimizer with one learning rate, got {found}. Use a scheduler of torch"
        )
    fields = {
        "parameters": [],
        "loss": "",
        "split": "",
        "optimizer": {"name": "sgd", "lr": rates[0]},  # the rate alone is used, and only with a schedule
        "schedule": schedule or "constant",
        "clip": clip,
        "period": period,
        "inner_steps": inner_steps,
        "accumulate": accumulate,
        "patience": patience,
        "warmup": warmup,
        "mode": mode,
        "scale_free": scale_free,
        "hypergradient": {below: _with_batches(entry, below) for below, entry in (hypergradient or {}).items()},
        "regularizers": list(regularizers),
        "freezing": freezing,
    }
    try:
        return LoopLevel(optimizer, loss, convert(fields, Level, "nas.level"), schedule is not None)
    except InvalidFileError as error:
        raise ConfigError(str(error)) from error


class Levels:
    """Levels over one network that a loop of one's own steps.

    A call of `step` takes one step of all levels, from the lowest to the highest, as `nas.search` does: hypergradient
    methods do not move buffers or draw random numbers, and a step that is not finite is undone.

    Args:
        net: the supernet, or any network, on its device.
        steps: the number of steps. Modules with a method `on_progress(step, steps)` are told each step. Parts that
            change over the run need it: such a module, a relaxation or a wrapper that depends on the step, a schedule,
            a regularizer with a ramp, a warm-up.
        precision: of the losses; `bfloat16` uses autocast.
        resources: what regularizers ask for, as functions: `{"flops": lambda: costs(description, "flops", example)}`;
            the `cost` of a supernet in parameters is known.
        levels: from the lowest to the highest, each made by `nas.level`.

    Raises:
        ConfigError: the levels cannot work: an optimizer has parameters of another network or of another level, a part
            needs `steps`, a method must unroll an optimizer whose virtual step is unknown.

    Example:
        >>> net = nas.Supernet("digits")
        >>> weights = torch.optim.SGD(net.weights(), 0.025, momentum=0.9)
        >>> arch = torch.optim.Adam(net.logits(), 3e-4)
        >>> def loss(net, batch):
        ...     images, labels = batch
        ...     return nn.functional.cross_entropy(net(images), labels)
        >>> levels = nas.Levels(net, steps=2,
        ...     lower=nas.level(weights, loss=loss),
        ...     upper=nas.level(arch, loss=loss, hypergradient={"lower": "unrolled"}))
        >>> batch = torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 3])
        >>> for _ in range(2):
        ...     moved = levels.step(lower=batch, upper=batch)
        >>> genotype = net.derive()
    """

    def __init__(
        self,
        net: nn.Module,
        /,
        *,
        steps: int | None = None,
        precision: Precision = "float32",
        resources: Resources | None = None,
        **levels: LoopLevel,
    ) -> None:
        if steps is not None and steps < 1:
            raise ConfigError(f"nas.Levels: 'steps' must be at least 1, got {steps}")
        for name, each in levels.items():
            if not isinstance(each, LoopLevel):
                raise ConfigError(f"nas.Levels: '{name}' must be a level that nas.level returned, got {each!r}")
        self.steps = steps
        self.done = 0
        """The number of steps taken."""
        configs = {
            name: msgspec.structs.replace(each.config, parameters=(name,), loss=name, split=name)
            for name, each in levels.items()
        }
        losses = {name: each.loss for name, each in levels.items()}
        assign(configs, list(configs))  # checks the order of the levels
        if steps is None and (part := next(_changing(net, configs, losses), None)) is not None:
            raise ConfigError(f"nas.Levels: 'steps' must be given, because {part} changes over the run, got None")
        total = sys.maxsize if steps is None else steps
        owned = _owned(net, {name: each.optimizer for name, each in levels.items()})
        steppers = {
            name: Stepper(configs[name], each.optimizer, owned[name], total, sets_rate=each.scheduled)
            for name, each in levels.items()
        }
        known = {"cost": lambda: costs(net.space.describe(**net.options))} if isinstance(net, Supernet) else {}
        self._batches: dict[str, dict[int, Any]] = {}
        resources = {**known, **(resources or {})}
        self._levels = Multilevel(net, configs, losses, self._batch, total, resources, precision, steppers=steppers)
        self._checked = False
        self.reads = {
            name: config.accumulate * (config.inner_steps + self._levels.ahead[name])
            for name, config in configs.items()
        }
        """How many batches each level reads in a step: those of its own steps, then those of virtual steps."""

    def step(self, **batches: Any) -> dict[str, Moved]:
        """Take one step of all levels.

        The first step also checks the levels: it evaluates each loss and computes each hypergradient once.

        Args:
            batches: by level, the batch that its loss receives, moved to the network's device. A level that reads
                several batches (see `reads`) takes a list of them: first those of its own steps, then those of virtual
                steps. A level that neither moves in this step nor responds needs none, except in the first step.

        Returns:
            What each level that moved did: its loss, the norm of its gradient, the terms of its regularizers.

        Raises:
            ConfigError: a batch is missing, a level got another number of batches, or all steps are done; in the first
                step also if a level or a decision affects no loss, or a hypergradient cannot be computed.
            DivergedError: a level skipped `patience` steps in a row. The state can still be saved.
        """
        if self.done == self.steps:
            raise ConfigError(f"nas.Levels: 'steps' must be larger for another step, got {self.steps}")
        due = [name for name, each in self._levels.levels.items() if each.due(self.done, self._levels.steps)]
        self._receive(batches, due if self._checked else list(self._levels.levels))
        if not self._checked:
            self._levels.check(after=self.done)
            self._checked = True
        try:
            moved = self._levels.step(self.done)
        except DivergedError:
            self.done += 1
            raise
        self.done += 1
        return moved

    def gradient(self, name: str, /, **batches: Any) -> tuple[Tensor, Parameters]:
        """Compute a level's loss and its gradient by parameter, through the responses of the levels below.

        Nothing changes: no parameter, buffer, optimizer or random state.

        Args:
            name: of the level.
            batches: as in `step`, for this level and those that respond to it.

        Raises:
            UnknownNameError: there is no such level.
            ConfigError: a batch is missing, or the gradient cannot be computed.
        """
        if name not in self._levels.levels:
            raise UnknownNameError("level", name, self._levels.levels)
        self._receive(batches, [name])
        return self._levels.gradient(name, self.done)

    def state_dict(self) -> dict[str, Any]:
        """The number of steps, the states of the optimizers and the counts of skipped steps.

        The network, torch's random state and the user's schedulers have states of their own.
        """
        return {"step": self.done, **self._levels.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._levels.load_state_dict(state)
        self.done = state["step"]
        self._checked = self.done > 0

    @property
    def skipped(self) -> dict[str, int]:
        """Steps not taken because a loss, a gradient or a result was not finite, by level."""
        return self._levels.skipped

    def _receive(self, batches: Mapping[str, Any], moving: Sequence[str]) -> None:
        """Store the batches of a step by the numbers under which `Multilevel` reads them."""
        levels, total = self._levels.levels, self._levels.steps
        for name in batches:
            if name not in levels:
                raise UnknownNameError("level", name, levels)
        for name in moving:
            for needed in (name, *responding(levels[name])):
                if needed not in batches:
                    raise ConfigError(f"nas.Levels: '{needed}' must have a batch in step {self.done}, got none")
        self._levels.batch.clear()
        for name, given in batches.items():
            config, read = levels[name], self._read(name, given)
            own = config.inner_steps * config.accumulate
            virtual = [config.after(self.done, total, count) for count in range(self._levels.ahead[name])]
            latest = config.after(self.done, total, -1)
            turns = [latest, *virtual, *((self.done, inner) for inner in range(config.inner_steps))]
            after, before = range(own, len(read), config.accumulate), range(0, own, config.accumulate)
            starts = [before[-1], *after, *before]
            self._batches[name] = {
                (k * config.inner_steps + inner) * config.accumulate + part: read[start + part]
                for (k, inner), start in zip(turns, starts, strict=True)
                for part in range(config.accumulate)
            }

    def _read(self, name: str, given: Any) -> list[Any]:
        """The batches of a level as a list; raises `ConfigError` for another number than it reads."""
        count = self.reads[name]
        if count == 1:
            return [given]
        config = self._levels.levels[name]
        own = config.inner_steps * config.accumulate
        found = f"{len(given)}" if isinstance(given, list) else f"a {type(given).__name__}"
        if not isinstance(given, list) or len(given) != count or len({_form(batch) for batch in given}) > 1:
            found += " of different forms" if isinstance(given, list) and len(given) == count else ""
            hint = ". With 'batches': 'repeat' a method reads none for virtual steps" if count > own else ""
            raise ConfigError(
                f"nas.Levels: '{name}' must get a list of {count} batches ({own} for its own steps, {count - own} for"
                f" virtual steps), got {found}{hint}"
            )
        return given

    def _batch(self, name: str, index: int) -> Any:
        """A batch as `Multilevel` reads it. A diagnosis may ask for an earlier one: then the latest."""
        batches = self._batches[name]
        return batches[index] if index in batches else next(iter(batches.values()))


def _with_batches(entry: str | Mapping[str, Any], below: str) -> Mapping[str, Any]:
    """The entry of a method with its `batches`: those of the next steps if it takes several."""
    stated = {"name": entry} if isinstance(entry, str) else dict(entry)
    if "batches" in stated:
        return stated
    method = create_response({**stated, "batches": "repeat"}, f"nas.level: hypergradient.{below}")
    return {**stated, "batches": "next" if getattr(method, "steps", 1) > 1 else "repeat"}


def _owned(net: nn.Module, optimizers: Mapping[str, Optimizer]) -> dict[str, dict[str, nn.Parameter]]:
    """The parameters of each optimizer that require a gradient, by name."""
    every = {id(p) for p in net.parameters()}
    owners: dict[int, str] = {}
    for level, optimizer in optimizers.items():
        for p in (p for group in optimizer.param_groups for p in group["params"]):
            if id(p) not in every:
                raise ConfigError(
                    f"level '{level}': the optimizer's parameters must be the network's, got another one of shape"
                    f" {tuple(p.shape)}"
                )
            if (other := owners.setdefault(id(p), level)) != level:
                name = next(name for name, each in net.named_parameters() if each is p)
                raise ConfigError(f"levels '{other}' and '{level}' both own the parameter '{name}'")
    owned: dict[str, dict[str, nn.Parameter]] = {level: {} for level in optimizers}
    for name, p in trainable(net).items():
        if id(p) in owners:
            owned[owners[id(p)]][name] = p
    for level, parameters in owned.items():
        if not parameters:
            raise ConfigError(
                f"level '{level}': the optimizer must have a parameter that requires a gradient, got none"
            )
    return owned


def _changing(net: nn.Module, levels: Mapping[str, Level], losses: Mapping[str, TaskLoss]) -> Iterator[str]:
    """The parts that change over a run."""
    for name, module in net.named_modules():
        if isinstance(module, Supernet):
            if isinstance(module.relaxation, Sampling):
                yield f"the relaxation {type(module.relaxation).__name__}"
            yield from (f"the wrapper {type(each).__name__}" for each in module.wrappers if each.schedule != "none")
        elif hasattr(module, "on_progress"):
            yield f"the module '{name}' ({type(module).__name__})"
    for name, config in levels.items():
        if config.schedule["name"] != "constant" or WARMUP in config.schedule:
            yield f"the schedule of level '{name}'"
        if follows_progress(losses[name]):
            yield f"the loss of level '{name}'"
        if config.warmup:
            yield f"the warm-up of level '{name}'"
        for term in config.regularizers:
            if term["ramp"]:
                yield f"the regularizer '{term['name']}' of level '{name}'"


def _form(batch: Any) -> object:
    """What the batches of one loader have in common."""
    leaves, structure = tree_flatten(batch)
    return str(structure), *((leaf.dim(), leaf.dtype) for leaf in leaves if isinstance(leaf, Tensor))
