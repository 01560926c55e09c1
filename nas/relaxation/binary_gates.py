"""Binary gates on paths (Cai et al., ProxylessNAS, ICLR 2019)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nas.declarations import LEARNED, SHARES, TWO_PATHS, declares
from nas.relaxation.sampling import Draw, learns, one_hot, straight_through
from nas.space.mixed import Sampled


@declares(reads="logits", writes=("mixing weights", "logits"), gives=(SHARES, TWO_PATHS, LEARNED))
class BinaryGates(nn.Module):
    """Computes one candidate in steps of the operation weights, and two in steps of the logits.

    - In a step that does not move the logits, one candidate is drawn with probability `p = softmax(a)`.
    - In a step that moves them, two candidates are drawn from p without replacement, and p is rescaled to the two. One
      of the two is active, drawn by the rescaled probabilities: its gate is 1. The other one is computed without a
      graph, and its gate is 0. The gates have the gradient of the rescaled softmax of the two logits.
    - After such a step both logits are shifted by the same number, so that the two have the mass that they had before.
      The other logits stay, so that the probabilities of all other candidates do, whatever the optimizer is.

    The expected gradient is biased, even for a linear loss. In eval mode nothing is random: the strongest candidate is
    active, the second one is the other. Mixing weights, by which a genotype is derived, are p.

    Shape:
        - Input: logits `(candidates,)`.
        - Output: mixing weights `(candidates,)`.

    References:
        Cai et al., ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware, ICLR 2019, sec. 3.2.1;
        mit-han-lab/proxylessnas, `search/modules/mix_op.py`, mode `two`.
    """

    def forward(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1)

    def draw(self, logits: Tensor, draw: Draw) -> Sampled:
        if not learns(logits):
            choice = draw.ranked(draw.gumbel("weights"))[0]
            return Sampled(choice, one_hot(choice, logits))
        active, *silent = _pair(draw)
        others = torch.tensor([i not in (active, *silent) for i in range(len(logits))], device=logits.device)
        gates = straight_through(active, logits.masked_fill(others, -math.inf).softmax(-1))
        return Sampled(active, gates, tuple(silent))

    def after_step(self, before: Tensor, after: Tensor, draw: Draw) -> Tensor:
        pair = _pair(draw)
        shift = before[pair].logsumexp(-1) - after[pair].logsumexp(-1)
        corrected = before.clone()
        corrected[pair] = after[pair] + shift
        return corrected


def _pair(draw: Draw) -> list[int]:
    """The two candidates of an arch step by position, the active one first; one candidate if there is no other."""
    pair = draw.ranked(draw.gumbel())[:2]
    order = draw.ranked(draw.gumbel("active"))
    return sorted(pair, key=order.index)
