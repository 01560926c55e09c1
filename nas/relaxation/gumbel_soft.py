"""The Gumbel-softmax relaxation (Xie et al., SNAS, ICLR 2019)."""

from __future__ import annotations

from torch import Tensor, nn

from nas.declarations import EVERY_CANDIDATE, LEARNED, SAME_CANDIDATES, SHARES, declares
from nas.registry import Positive
from nas.relaxation.sampling import Draw, linear


@declares(reads="logits", writes="mixing weights", gives=(SHARES, EVERY_CANDIDATE, LEARNED, SAME_CANDIDATES))
class GumbelSoft(nn.Module):
    """`w = softmax((a + g) / temperature)` with noise g from Gumbel(0, 1): every candidate is computed.

    The largest weight is that of candidate i with probability `softmax(a)_i`, and approaches 1 as the temperature
    falls. In eval mode there is no noise. Mixing weights, by which a genotype is derived, are `softmax(a)`.

    Args:
        temperature: temperature at the first step of the search.
        final_temperature: temperature at the last step; in between it changes linearly. The defaults are those of the
            authors' command for CIFAR-10 (SNAS-Series, `SNAS/README.md`: `--temp 1 --temp_min 0.03`).

    Shape:
        - Input: logits `(candidates,)`.
        - Output: mixing weights `(candidates,)`.

    References:
        Xie et al., SNAS: Stochastic Neural Architecture Search, ICLR 2019.
    """

    def __init__(self, temperature: Positive = 1.0, final_temperature: Positive = 0.03) -> None:
        super().__init__()
        self.temperature = temperature
        self.final_temperature = final_temperature

    def forward(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1)

    def draw(self, logits: Tensor, draw: Draw) -> Tensor:
        temperature = linear(self.temperature, self.final_temperature, draw.progress)
        return ((logits + logits.new_tensor(draw.gumbel())) / temperature).softmax(-1)
