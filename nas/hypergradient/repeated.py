"""A response to the batch that a level has just descended."""

from __future__ import annotations

from nas.hypergradient.protocol import Loss, Parameters, Response, Step


class Repeated:
    """Another response, to the last batch that the level has descended in place of those of its next steps.

    Args:
        method: the other response. With a true attribute `reuse` it is handed the gradient of that step too.
    """

    def __init__(self, method: Response) -> None:
        self.method = method
        self.steps = getattr(method, "steps", 1)
        self.reuse = getattr(method, "reuse", False)

    def __call__(self, loss: Loss, own: Parameters, others: Parameters, step: Step) -> Parameters:
        return self.method(loss, own, others, step)
