"""What a hypergradient method is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

Parameters = dict[str, Tensor]
"""Parameters by name."""

Part = Callable[[Parameters, Parameters], Tensor]
"""A loss on one micro-batch: (the level's own parameters, those of all other levels) to a scalar."""

Step = Callable[[Parameters, Parameters], Parameters]
"""One step of a level's optimizer, differentiable: (parameters, gradients) to parameters."""


@dataclass(frozen=True)
class Loss:
    """A level's own loss `f(w, a)` in its next step: the mean of its parts.

    Args:
        parts: one for each micro-batch.
        replay: a context in which the same random numbers are drawn each time, so that every evaluation is of the same
            function; it leaves the random state as it was.
        taken: the gradient, by parameter, of the step that the level took earlier in the same search step; filled only
            if the response is `Repeated` and has a true attribute `reuse`.
        later: the parts of the step that comes so many steps after the next one; the same parts if None.
    """

    parts: Sequence[Part]
    replay: Callable[[], AbstractContextManager[None]] = nullcontext
    taken: Mapping[str, Tensor] = field(default_factory=dict)
    later: Callable[[int], Sequence[Part]] | None = None

    def after(self, steps: int) -> Loss:
        """The loss of the step that comes `steps` steps after the next one."""
        later = self.later
        if later is None or steps == 0:
            return self
        return replace(self, parts=later(steps), later=lambda further: later(steps + further))

    def __call__(self, own: Parameters, others: Parameters) -> Tensor:
        """The loss, a scalar, with its graph."""
        with self.replay():
            return torch.stack([part(own, others) for part in self.parts]).mean()

    def gradient(self, own: Parameters, others: Parameters, to: Sequence[Tensor]) -> list[Tensor]:
        """The gradient with respect to `to`, some of the parameters, which must be leaves; without a graph.

        The graph of one part is alive at a time.
        """
        total = [torch.zeros_like(tensor) for tensor in to]
        with self.replay(), torch.enable_grad():
            for part in self.parts:
                found = differentiate(part(own, others) / len(self.parts), to)
                total = [a + b for a, b in zip(total, found, strict=True)] if len(self.parts) > 1 else found
        return total


class Response(Protocol):
    """The parameters of a level as a differentiable function of the levels above it."""

    def __call__(self, loss: Loss, own: Parameters, others: Parameters, step: Step) -> Parameters:
        """The level's parameters, attached to the graph of those of `others` that require a gradient.

        Args:
            loss: the level's own loss, never the upper one; virtual step `i`, from 0, descends `loss.after(i)`.
            own: the current values of the level's parameters, without a graph.
            others: the parameters of all other levels: constants, leaves, or the responses of levels further below.
            step: the step that the level's optimizer will really take from here; each further call takes the one after.
        """


def differentiate(
    output: Tensor | Sequence[Tensor],
    inputs: Sequence[Tensor],
    vector: Sequence[Tensor] | None = None,
    *,
    create_graph: bool = False,
    retain_graph: bool | None = None,
) -> list[Tensor]:
    """The gradient of `output` (its product with `vector` from the left); zeros for inputs that it does not depend on.

    Outputs that depend on nothing are left out.
    """
    outputs = [output] if isinstance(output, Tensor) else list(output)
    vectors = [None] * len(outputs) if vector is None else list(vector)
    kept = [(o, v) for o, v in zip(outputs, vectors, strict=True) if o.requires_grad]
    if not kept or not inputs:
        return [torch.zeros_like(tensor) for tensor in inputs]
    return list(
        torch.autograd.grad(
            [o for o, _ in kept],
            inputs,
            [v for _, v in kept],
            create_graph=create_graph,
            retain_graph=retain_graph,
            allow_unused=True,
            materialize_grads=True,
        )
    )


def leaves(parameters: Mapping[str, Tensor]) -> Parameters:
    """The same values without their graph, each requiring a gradient."""
    return {name: value.detach().requires_grad_() for name, value in parameters.items()}


def constants(parameters: Mapping[str, Tensor]) -> Parameters:
    """The same values without their graph."""
    return {name: value.detach() for name, value in parameters.items()}
