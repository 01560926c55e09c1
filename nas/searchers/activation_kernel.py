"""The score `naswot`: how well the rectifiers of an untrained network tell the inputs of a batch apart."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nas.errors import ConfigError
from nas.searchers.score import LOWEST

RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU)


def naswot(network: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """Return log |det K|, where K[i, j] is the number of rectifiers that are active for both inputs or for neither.

    If two inputs of the batch have the same code, as in a network without rectifiers, K is singular and the score the
    lowest. Rectifiers are modules, such as `nn.ReLU`. If one receives several maps of each input, such as the frames of
    a clip, those of one input must be adjacent, as after `frames.flatten(0, 1)`; they are one code.

    Raises:
        ConfigError: the batch of a rectifier is no multiple of the batch of the network.

    References:
        Mellor et al., "Neural Architecture Search without Training", ICML 2021, equations 1 and 2.
    """
    batch = len(inputs[0])
    kernel = torch.zeros(batch, batch, dtype=torch.double, device=inputs[0].device)

    def count(_: nn.Module, given: tuple[Any, ...]) -> None:
        if len(given[0]) % batch:
            raise ConfigError(
                f"score 'naswot': the batch of a rectifier must be a multiple of the batch size {batch}, got shape"
                f" {tuple(given[0].shape)}. Choose another score"
            )
        active = (given[0].reshape(batch, -1) > 0).double()
        kernel.add_(active @ active.T + (1 - active) @ (1 - active).T)

    hooks = [m.register_forward_pre_hook(count) for m in network.modules() if isinstance(m, RECTIFIERS)]
    try:
        with torch.no_grad():
            network(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    sign, logarithm = torch.linalg.slogdet(kernel)
    return logarithm.item() if sign > 0 and logarithm.isfinite() else LOWEST
