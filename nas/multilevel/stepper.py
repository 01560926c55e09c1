"""The steps of one level's optimizer: clipping, learning rate, undoing a step that is not finite, counting skips."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nas.hypergradient.response import Parameters
from nas.kernels.evaluation import copied
from nas.kernels.finite import in_range
from nas.kernels.torch_internals import foreach_mul
from nas.multilevel.level import Level


class Stepper:
    """Takes the steps of one level.

    Args:
        level: its clipping and its schedule.
        optimizer: over `parameters`.
        parameters: the level's, by name.
        steps: the number of search steps.
        sets_rate: whether the learning rate is the level's; otherwise it is the optimizer's own at each step.
    """

    def __init__(
        self,
        level: Level,
        optimizer: Optimizer,
        parameters: Mapping[str, nn.Parameter],
        steps: int,
        *,
        sets_rate: bool = True,
    ) -> None:
        self.level, self.optimizer, self.parameters = level, optimizer, parameters
        self._steps, self._sets_rate = steps, sets_rate
        self.skipped = 0
        """Steps not taken because a loss, a gradient or a result was not finite."""
        self.in_a_row = 0
        """The number of the latest steps that were all skipped."""
        self.since = 0
        """The search step at which these began."""
        self.backed_off = False
        """Whether the learning rate was lowered by `backoff`."""
        self.forgiven = 0
        """Of the latest skipped steps those before the learning rate was lowered."""
        self.frozen: dict[str, tuple[str, ...]] = {}
        """The parameters of the operations that are frozen for good, by operation."""

    @property
    def moving(self) -> dict[str, nn.Parameter]:
        """The parameters that are not frozen, by name."""
        frozen = {name for parameters in self.frozen.values() for name in parameters}
        return {name: parameter for name, parameter in self.parameters.items() if name not in frozen}

    def rates(self, ks: Iterable[int]) -> Iterator[float] | None:
        """The learning rates at search steps, after the end of the run the last one; None for the optimizer's own."""
        steps, share = self._steps, (self.level.backoff or 1.0) if self.backed_off else 1.0
        return (share * self.level.lr(min(k, steps - 1), steps) for k in ks) if self._sets_rate else None

    def clipping(self, norm: float) -> float:
        """The factor, at most 1, that clips a gradient of this norm."""
        clip = self.level.clip
        return 1.0 if clip is None else min(1.0, clip / (norm + 1e-6))

    def take(self, k: int, gradients: Parameters, norm: float, buffers: Callable[[], Iterable[Tensor]]) -> bool:
        """Take the step of search step `k`, and undo it if what it leaves is not finite.

        Args:
            k: the search step.
            gradients: by parameter, of those that move; the optimizer passes over all others.
            norm: of all gradients together.
            buffers: those that must be finite afterwards too.

        Returns:
            Whether the step was taken.
        """
        if (scale := self.clipping(norm)) < 1:
            scaled = foreach_mul(list(gradients.values()), scale)
            gradients = dict(zip(gradients, scaled, strict=True))
        for name, gradient in gradients.items():
            self.parameters[name].grad = gradient
        for rate in self.rates([k]) or []:
            for group in self.optimizer.param_groups:
                group["lr"] = rate
        undo = undoing(self.optimizer)
        try:
            self.optimizer.step()
        except RuntimeError as error:  # a learning rate beyond the dtype
            undo()
            if "without overflow" not in str(error):
                raise
            return False
        finally:
            self.optimizer.zero_grad(set_to_none=True)
        states = (self.optimizer.state.get(p, {}) for p in self.parameters.values())
        tensors = [t for state in states for t in state.values() if isinstance(t, Tensor)]
        if in_range([*self.parameters.values(), *tensors, *buffers()]):
            self.in_a_row = self.forgiven = 0
            return True
        undo()
        return False

    def skip(self, k: int) -> None:
        """Count a step that was not taken in search step `k`."""
        if not self.in_a_row:
            self.since = k
        self.skipped += 1
        self.in_a_row += 1

    @property
    def out_of_patience(self) -> bool:
        """Whether as many steps in a row as the level allows were skipped, those that were forgiven apart."""
        return self.in_a_row - self.forgiven >= self.level.patience

    def back_off(self) -> bool:
        """Lower the learning rate and forgive the latest skipped steps; returns whether it can, once in a run."""
        if self.level.backoff is None or self.backed_off:
            return False
        self.backed_off, self.forgiven = True, self.in_a_row
        return True


def undoing(optimizer: Optimizer) -> Callable[[], None]:
    """Copy an optimizer's parameters and state; the returned function restores both."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    states = {p: dict(optimizer.state[p]) for p in parameters if p in optimizer.state}
    tensors = [t for state in states.values() for t in state.values() if isinstance(t, Tensor)]
    groups = [dict(group) for group in optimizer.param_groups]
    kept = [*(p.detach() for p in parameters), *tensors]
    before = copied({str(i): tensor for i, tensor in enumerate(kept)})

    @torch.no_grad()
    def restore() -> None:
        for tensor, value in zip(kept, before.values(), strict=True):  # optimizers change them in place
            tensor.copy_(value)
        for p in parameters:
            optimizer.state.pop(p, None)
        optimizer.state.update(states)
        for group, options in zip(optimizer.param_groups, groups, strict=True):
            group.clear()
            group.update(options)

    return restore
