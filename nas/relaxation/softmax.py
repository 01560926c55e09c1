"""The softmax relaxation (Liu et al., DARTS, ICLR 2019, eq. 2)."""

from __future__ import annotations

from torch import Tensor, nn

from nas.declarations import EVERY_CANDIDATE, LEARNED, SAME_CANDIDATES, SHARES, SOFTMAX, declares
from nas.registry import Positive
from nas.relaxation.relaxation import USUAL


@declares(reads="logits", writes="mixing weights", gives=(SHARES, EVERY_CANDIDATE, LEARNED, SAME_CANDIDATES, SOFTMAX))
class Softmax(nn.Module):
    """`w_i = exp(a_i / temperature) / sum_j exp(a_j / temperature)`.

    Args:
        temperature: below 1 it sharpens the mixing weights, above 1 it flattens them.

    Shape:
        - Input: logits `(candidates,)`.
        - Output: mixing weights `(candidates,)`.

    References:
        Liu et al., DARTS: Differentiable Architecture Search, ICLR 2019, eq. 2 (temperature 1).
    """

    def __init__(self, temperature: Positive = 1.0) -> None:
        super().__init__()
        self.temperature = temperature
        if temperature != 1:
            self.declaration = USUAL

    def forward(self, logits: Tensor) -> Tensor:
        return (logits if self.temperature == 1 else logits / self.temperature).softmax(-1)
