"""The sparsemax relaxation (Martins and Astudillo, ICML 2016)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nas.declarations import EVERY_CANDIDATE, LEARNED, SAME_CANDIDATES, SHARES, declares
from nas.registry import Positive


@declares(reads="logits", writes="mixing weights", gives=(SHARES, EVERY_CANDIDATE, LEARNED, SAME_CANDIDATES))
class Sparsemax(nn.Module):
    """The distribution nearest to the logits: `argmin |w - a / temperature|` over w >= 0 that sum to 1.

    Small logits get the weight 0 exactly. Such a candidate has no gradient until another candidate weakens: its logit
    gets one again as soon as it comes within reach of the support.

    Args:
        temperature: below 1 it sharpens the mixing weights, above 1 it flattens them.

    Shape:
        - Input: logits `(candidates,)`.
        - Output: mixing weights `(candidates,)`.

    References:
        Martins and Astudillo, From Softmax to Sparsemax, ICML 2016, alg. 1.
    """

    def __init__(self, temperature: Positive = 1.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, logits: Tensor) -> Tensor:
        scaled = logits / self.temperature
        ordered = scaled.sort(descending=True).values
        thresholds = (ordered.cumsum(0) - 1) / torch.arange(1, len(logits) + 1, device=logits.device)
        # Where the sorted logits exceed their threshold, which is true of the first ones alone, they are the support.
        threshold = thresholds.gather(0, (ordered > thresholds).sum(0, keepdim=True) - 1)
        return (scaled - threshold).relu()
