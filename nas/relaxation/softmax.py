"""The softmax relaxation (Liu et al., DARTS, ICLR 2019, eq. 2)."""

from __future__ import annotations

from torch import Tensor, nn

from nas.errors import ConfigError


class Softmax(nn.Module):
    """`w_i = exp(a_i / temperature) / sum_j exp(a_j / temperature)`; raises `ConfigError` unless temperature > 0."""

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise ConfigError(f"'temperature' of softmax is above 0, found {temperature}")
        self.temperature = temperature

    def forward(self, logits: Tensor) -> Tensor:
        return (logits if self.temperature == 1 else logits / self.temperature).softmax(-1)
