"""The pull of an optimizer's weight decay, in the unit of gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer


@torch.no_grad()
def decay_of(optimizer: Optimizer, parameter: nn.Parameter, value: Tensor) -> Tensor:
    """Return the gradient that would have moved a parameter as the weight decay of the last step did.

    Weight decay that is added to the gradient is `weight_decay * value`. Decoupled weight decay (AdamW) does not pass
    through the division of the gradient by the root of its second moment, so it is that, times this root.

    Args:
        optimizer: it has taken the step.
        parameter: one of the optimizer's.
        value: of the parameter before the step.
    """
    group = next(group for group in optimizer.param_groups if any(parameter is p for p in group["params"]))
    pull: Tensor = group.get("weight_decay", 0.0) * value
    if isinstance(optimizer, AdamW) or group.get("decoupled_weight_decay"):
        state = optimizer.state[parameter]
        correction = 1 - group["betas"][1] ** int(state["step"])
        pull = pull * ((state["exp_avg_sq"] / correction).sqrt() + group["eps"])
    return pull
