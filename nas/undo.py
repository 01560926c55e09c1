"""Take back the step of an optimizer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim import Optimizer

from nas.probing import copied


def remembered(optimizer: Optimizer) -> Callable[[], None]:
    """Keep an optimizer's parameters and its state as they are now; the function returned restores them."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    known = [p for p in parameters if p in optimizer.state]
    new = [p for p in parameters if p not in optimizer.state]
    states = [t for p in known for t in optimizer.state[p].values() if isinstance(t, Tensor)]
    kept = [*(p.detach() for p in parameters), *states]
    before = copied({str(i): tensor for i, tensor in enumerate(kept)})

    @torch.no_grad()
    def restore() -> None:
        for tensor, value in zip(kept, before.values(), strict=True):  # optimizers change them in place
            tensor.copy_(value)
        for p in new:
            optimizer.state.pop(p, None)

    return restore
