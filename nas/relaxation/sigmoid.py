"""The sigmoid relaxation (Chu et al., FairDARTS, ECCV 2020)."""

from __future__ import annotations

from torch import Tensor, nn

from nas.declarations import EVERY_CANDIDATE, LEARNED, SAME_CANDIDATES, SEPARATE, declares


@declares(reads="logits", writes="mixing weights", gives=(SEPARATE, EVERY_CANDIDATE, LEARNED, SAME_CANDIDATES))
class Sigmoid(nn.Module):
    """`w_i = 1 / (1 + exp(-a_i))`: candidates do not compete, and mixing weights do not sum to 1.

    The regularizer `zero_one` drives the weights to 0 or 1. A genotype is derived by thresholds on them, or by the
    largest one.

    Shape:
        - Input: logits `(candidates,)`.
        - Output: mixing weights `(candidates,)`.

    References:
        Chu et al., Fair DARTS: Eliminating Unfair Advantages in Differentiable Architecture Search, ECCV 2020.
    """

    def forward(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()
