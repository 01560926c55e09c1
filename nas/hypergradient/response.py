"""What a hypergradient method is: a `Response`, which gets the level's `Loss` and its next optimizer `Step`s."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from nas.errors import ConfigError

Parameters = dict[str, Tensor]
"""Parameters by name."""

Part = Callable[[Parameters, Parameters], Tensor]
"""A loss on one micro-batch: (the level's own parameters, those of all other levels) to a scalar."""

Traced = Callable[[Parameters, Parameters], tuple[Tensor, Sequence[Tensor]]]
"""The same, with the outputs of the network that the loss is a function of."""

Step = Callable[[Parameters, Parameters], Parameters]
"""One differentiable step of a level's optimizer: (parameters, gradients) to parameters."""


@dataclass(frozen=True)
class Loss:
    """A level's own loss `f(w, a)` in its next step: the mean of its parts.

    Args:
        parts: losses of the micro-batches.
        replay: makes a context that draws the same random numbers each time and leaves the random state unchanged, so
            that every evaluation is of the same function.
        taken: gradient of the step that the level took earlier in the same search step, by parameter; filled only if
            the response is `Repeated` and has a true attribute `reuse`.
        traces: for each part, a function that also returns the outputs of the network; empty if they are not known.
        later: function of a number of steps that returns the parts that many steps after the next one; if None, all
            steps have the same parts.
    """

    parts: Sequence[Part]
    replay: Callable[[], AbstractContextManager[None]] = nullcontext
    taken: Mapping[str, Tensor] = field(default_factory=dict)
    traces: Sequence[Traced] = ()
    later: Callable[[int], Sequence[Part]] | None = None

    def traced(self) -> Sequence[Traced]:
        """Return the parts as functions that also return the outputs of the network.

        Raises:
            ConfigError: they are not known.
        """
        if not self.traces:
            raise ConfigError("a Gauss-Newton matrix needs the outputs of the network, which this loss does not know")
        return self.traces

    def after(self, steps: int) -> Loss:
        """Return the loss of the step that comes `steps` steps after the next one."""
        later = self.later
        if later is None or steps == 0:
            return self
        return replace(self, parts=later(steps), later=lambda further: later(steps + further))

    def __call__(self, own: Parameters, others: Parameters) -> Tensor:
        """Return the loss, a scalar, with its graph."""
        with self.replay():
            return torch.stack([part(own, others) for part in self.parts]).mean()

    def gradient(self, own: Parameters, others: Parameters, to: Sequence[Tensor]) -> list[Tensor]:
        """Return the gradient with respect to some of the parameters, which must be leaves, without a graph.

        Only the graph of one part is in memory at a time.
        """
        total = [torch.zeros_like(tensor) for tensor in to]
        with self.replay(), torch.enable_grad():
            for part in self.parts:
                found = differentiate(part(own, others) / len(self.parts), to)
                total = [a + b for a, b in zip(total, found, strict=True)] if len(self.parts) > 1 else found
        return total


class Response(Protocol):
    """The parameters of a level as a differentiable function of the levels above it.

    Register a class whose instances are such functions as a `hypergradient`. Three attributes are optional: `steps`,
    the number of virtual steps, so that their batches are read once; `unrolls`, true if it calls `step`, so that an
    optimizer without a virtual step is refused before the run; and `reuse`, true if it takes `loss.taken`.

    Example:
        >>> @nas.register("hypergradient", "half")
        ... class Half:
        ...     def __call__(self, loss, own, others, step):
        ...         point = leaves(own)
        ...         gradients = differentiate(loss(point, others), list(point.values()), create_graph=True)
        ...         return {name: w - 0.5 * g for (name, w), g in zip(own.items(), gradients)}
    """

    def __call__(self, loss: Loss, own: Parameters, others: Parameters, step: Step) -> Parameters:
        """Return the level's parameters, attached to the graph of those of `others` that require a gradient.

        Args:
            loss: the level's own loss, never the upper one. Virtual step `i`, from 0, descends `loss.after(i)`.
            own: current values of the level's parameters, without a graph.
            others: parameters of all other levels: constants, leaves, or the responses of levels further below.
            step: the next step of the level's optimizer; each further call is the step after.
        """


def differentiate(
    output: Tensor | Sequence[Tensor],
    inputs: Sequence[Tensor],
    vector: Sequence[Tensor] | None = None,
    *,
    create_graph: bool = False,
    retain_graph: bool | None = None,
) -> list[Tensor]:
    """Return the gradient of `output`, multiplied by `vector` from the left; zeros for inputs without influence.

    Outputs that do not require a gradient are left out.
    """
    options = {"create_graph": create_graph, "retain_graph": retain_graph, "materialize_grads": True}
    found = _gradients(output, inputs, vector, **options)
    return [torch.zeros_like(tensor) if each is None else each for tensor, each in zip(inputs, found, strict=True)]


def summed_gradient(outputs: Iterable[Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradient of the sum of `outputs`, of which each is computed and differentiated before the next.

    What an output does not depend on costs nothing, such as the candidates that a path leaves out.
    """
    total: list[Tensor | None] = [None] * len(inputs)
    for output in outputs:
        found = _gradients(output, inputs, None)
        total = [b if a is None else a if b is None else a + b for a, b in zip(total, found, strict=True)]
    return [torch.zeros_like(tensor) if each is None else each for tensor, each in zip(inputs, total, strict=True)]


def _gradients(
    output: Tensor | Sequence[Tensor], inputs: Sequence[Tensor], vector: Sequence[Tensor] | None, **options: Any
) -> Sequence[Tensor | None]:
    outputs = [output] if isinstance(output, Tensor) else list(output)
    vectors = [None] * len(outputs) if vector is None else list(vector)
    kept = [(o, v) for o, v in zip(outputs, vectors, strict=True) if o.requires_grad]
    if not kept or not inputs:
        return [None] * len(inputs)
    found: Sequence[Tensor | None] = torch.autograd.grad(
        [o for o, _ in kept], inputs, [v for _, v in kept], allow_unused=True, **options
    )
    return found


def leaves(parameters: Mapping[str, Tensor]) -> Parameters:
    """Return the same values without their graph, as leaves that require a gradient."""
    return {name: value.detach().requires_grad_() for name, value in parameters.items()}


def constants(parameters: Mapping[str, Tensor]) -> Parameters:
    """Return the same values without their graph."""
    return {name: value.detach() for name, value in parameters.items()}
