"""The Gumbel straight-through relaxation (Dong and Yang, GDAS, CVPR 2019, eq. 3-7)."""

from __future__ import annotations

from torch import Tensor, nn

from nas.declarations import LEARNED, ONE_PATH, SAME_CANDIDATES, SHARES, declares
from nas.registry import Positive
from nas.relaxation.sampling import Draw, learns, linear, one_hot, straight_through
from nas.space.mixed import Sampled


@declares(reads="logits", writes="mixing weights", gives=(SHARES, ONE_PATH, LEARNED, SAME_CANDIDATES))
class Gumbel(nn.Module):
    """Computes one candidate, drawn with probability `softmax(a)`; its weight has the gradient of a softmax.

    With noise g from Gumbel(0, 1), `p = softmax((a + g) / temperature)`. The candidate is argmax p. Its weight is 1,
    with the gradient of its p. In eval mode there is no noise, so that the candidate is the strongest. Mixing weights,
    by which a genotype is derived, are `softmax(a)`.

    Args:
        temperature: temperature at the first step of the search.
        final_temperature: temperature at the last step; in between it changes linearly.

    Shape:
        - Input: logits `(candidates,)`.
        - Output: mixing weights `(candidates,)`.

    References:
        Dong and Yang, Searching for a Robust Neural Architecture in Four GPU Hours (GDAS), CVPR 2019, sec. 3.2.
    """

    def __init__(self, temperature: Positive = 10.0, final_temperature: Positive = 0.1) -> None:
        super().__init__()
        self.temperature = temperature
        self.final_temperature = final_temperature

    def forward(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1)

    def draw(self, logits: Tensor, draw: Draw) -> Sampled:
        noise = draw.gumbel()
        choice = draw.ranked(noise)[0]
        if not learns(logits):
            return Sampled(choice, one_hot(choice, logits))
        temperature = linear(self.temperature, self.final_temperature, draw.progress)
        soft = ((logits + logits.new_tensor(noise)) / temperature).softmax(-1)
        return Sampled(choice, straight_through(choice, soft))
