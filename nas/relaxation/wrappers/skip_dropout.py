"""Dropout on skip connections (Chen et al., P-DARTS, ICCV 2019)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Annotated

import msgspec
import torch
from torch import Tensor, nn

from nas.declarations import declares
from nas.distributed.whole_batch import uniform
from nas.errors import ConfigError
from nas.genotype.decision import Decision
from nas.registry import Count, NonNegative, Rate
from nas.relaxation.wrappers.candidates_named import require_candidate
from nas.space.wrapper import Factory, Moment, Spot, Wrapper

Epochs = Annotated[int, msgspec.Meta(ge=0)]


@declares(reads="candidates", writes="candidates")
class SkipDropout(Wrapper):
    """Zeroes each element of the output of a skip connection with a probability, and divides the others by 1 - it.

    Only in train mode, and only a skip connection without parameters: that of stride 2 is left as it is, as in the
    authors' code. The noise is a function of (seed, place in the network, step). The search is divided into `epochs`
    equal parts. In part e, from 0, the probability is

    - `rate (epochs - e - 1) / epochs` in the first `warmup` parts, in which the authors train operation weights alone,
    - `rate exp(-decay (e - warmup))` in the others.

    Args:
        rate: 0, the authors' default, changes nothing. Their example has .1, .4 and .7 in its three stages.
        epochs: the number of parts.
        warmup: at most `epochs`.
        decay: of the later parts.
        candidate: name of the skip connection.

    References:
        Chen et al., Progressive Differentiable Architecture Search: Bridging the Depth Gap Between Search and
        Evaluation, ICCV 2019, sec. 3.3;
        chenxin061/pdarts, `train_search.py`, and `MixedOp` of `model_search.py`.
    """

    schedule = "the probability by part of the search"

    def __init__(
        self,
        rate: Rate,
        epochs: Count = 25,
        warmup: Epochs = 10,
        decay: NonNegative = 0.2,
        candidate: str = "skip_connect",
    ) -> None:
        if warmup > epochs:
            raise ConfigError(
                f"wrapper 'skip_dropout': warmup must be at most epochs={epochs}, got {warmup}. The search has no more"
            )
        self.rate, self.epochs, self.warmup, self.decay, self.candidate = rate, epochs, warmup, decay, candidate

    def require(self, decisions: Mapping[str, Decision]) -> None:
        require_candidate("skip_dropout", self.candidate, decisions)

    def candidates(self, spot: Spot, made: Mapping[str, Factory]) -> Mapping[str, Factory]:
        if self.candidate not in made:
            return made
        return {**made, self.candidate: partial(self._dropped, spot, made[self.candidate])}

    def probability(self, moment: Moment) -> float:
        """Return the probability at a moment of the search."""
        e = min(moment.step * self.epochs // moment.steps, self.epochs - 1)
        if e < self.warmup:
            return self.rate * (self.epochs - e - 1) / self.epochs
        return self.rate * math.exp(-self.decay * (e - self.warmup))

    def _dropped(self, spot: Spot, make: Factory) -> nn.Module:
        skip = make()
        return skip if next(skip.parameters(), None) is not None else nn.Sequential(skip, _Dropout(self, spot))


class _Dropout(nn.Module):
    """Elementwise dropout whose noise is a function of the seed of a spot, the step and the pass."""

    def __init__(self, wrapper: SkipDropout, spot: Spot) -> None:
        super().__init__()
        self.wrapper, self.spot = wrapper, spot

    def forward(self, x: Tensor) -> Tensor:
        moment = self.spot.moment()
        rate = self.wrapper.probability(moment)
        if not self.training or moment.fixed or not rate:
            return x
        generator = torch.Generator(x.device).manual_seed(moment.noise_seed(self.spot.seed))
        kept = uniform(x, generator) >= rate
        return x * kept / (1 - rate)
