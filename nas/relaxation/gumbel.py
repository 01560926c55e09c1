"""The Gumbel straight-through relaxation: one candidate at a time (Dong and Yang, GDAS, CVPR 2019, eq. 3-7)."""

from __future__ import annotations

from torch import Tensor, nn

from nas.errors import ConfigError


class Gumbel(nn.Module):
    """Samples a candidate in proportion to `softmax(a)`, and gives the weight that it has the gradient of a softmax.

    With noise g from Gumbel(0, 1), `p = softmax((a + g) / temperature)`; the candidate is argmax p, its weight 1 with
    the gradient of its p; no other candidate is computed. The temperature goes linearly from `temperature` to
    `final_temperature` over the search. Without noise, as in eval mode, the strongest candidate is taken. Mixing
    weights, by which a genotype is derived, are `softmax(a)`.

    Raises `ConfigError` unless both temperatures are above 0.
    """

    def __init__(self, temperature: float = 10.0, final_temperature: float = 0.1) -> None:
        super().__init__()
        for name, value in (("temperature", temperature), ("final_temperature", final_temperature)):
            if not value > 0:
                raise ConfigError(f"'{name}' of gumbel is above 0, found {value}")
        self.temperature = temperature
        self.final_temperature = final_temperature

    def forward(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1)

    def relaxed(self, logits: Tensor, noise: Tensor, progress: float) -> Tensor:
        """The probabilities p of shape `(candidates,)`; `progress` is the share of the search that is over."""
        temperature = self.temperature + progress * (self.final_temperature - self.temperature)
        return ((logits + noise) / temperature).softmax(-1)
