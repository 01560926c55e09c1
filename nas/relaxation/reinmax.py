"""The ReinMax relaxation (Liu et al., NeurIPS 2023): a sampled candidate with a gradient of second-order accuracy."""

from __future__ import annotations

from typing import Annotated

import msgspec
from torch import Tensor, nn

from nas.declarations import EVERY_CANDIDATE, LEARNED, SAME_CANDIDATES, SHARES, declares
from nas.relaxation.sampling import Draw, learns, one_hot, straight_through
from nas.space.mixed import Sampled


@declares(reads="logits", writes="mixing weights", gives=(SHARES, EVERY_CANDIDATE, LEARNED, SAME_CANDIDATES))
class ReinMax(nn.Module):
    """Mixes by a one-hot D drawn with probability `p = softmax(a)`, whose gradient is that of `2 q - p / 2`.

    `q` has the value `(D + softmax(a / temperature)) / 2` and the gradient of a softmax. At temperature 1 the expected
    gradient is exact for every loss that is quadratic in the weights; that of straight-through is not. The gradient
    needs the outputs of all candidates, so they are computed in the steps that move the logits. Other steps, such as
    those of the operation weights, compute the drawn candidate alone. In eval mode the strongest is taken. Mixing
    weights, by which a genotype is derived, are `softmax(a)`.

    Args:
        temperature: of the smoothed distribution, at least 1.

    Shape:
        - Input: logits `(candidates,)`.
        - Output: mixing weights `(candidates,)`.

    References:
        Liu et al., Bridging Discrete and Backpropagation: Straight-Through and Beyond, NeurIPS 2023;
        microsoft/ReinMax, `reinmax/reinmax.py`.
    """

    def __init__(self, temperature: Annotated[float, msgspec.Meta(ge=1)] = 1.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1)

    def draw(self, logits: Tensor, draw: Draw) -> Tensor | Sampled:
        choice = draw.ranked(draw.gumbel())[0]
        if not learns(logits):
            return Sampled(choice, one_hot(choice, logits))
        smoothed = (one_hot(choice, logits) + (logits / self.temperature).softmax(-1)) / 2
        q = ((smoothed.log() - logits).detach() + logits).softmax(-1)
        return straight_through(choice, 2 * q - logits.softmax(-1) / 2)
