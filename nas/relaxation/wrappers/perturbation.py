"""Perturbed mixing weights in steps of the operation weights (Chen and Hsieh, SmoothDARTS, ICML 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
import torch
from torch import Tensor

from nas.declarations import SOFTMAX, declares
from nas.errors import ConfigError
from nas.registry import Count, NonNegative
from nas.relaxation.sampling import Draw, linear
from nas.space.mixed import Sampled
from nas.space.wrapper import LossOfWeights, Moment, Wrapper

Weights = dict[str, Tensor]


@declares(reads="mixing weights", writes="mixing weights", needs=SOFTMAX)
class Perturbation(Wrapper):
    """Trains the operation weights at mixing weights that are perturbed by at most epsilon.

    So the loss becomes flat around the mixing weights. Perturbed mixing weights are clamped to [0, 1] and normalized.
    Steps in which logits learn are not perturbed, nor is eval mode. epsilon rises linearly over the search.

    - `random`: uniform noise in (-epsilon, epsilon), a function of (seed, label, candidate, step).
    - `adversarial`: `steps` steps of `2 epsilon / steps` along the sign of the gradient of the loss, from a random
      start, on the batch of the step, in eval mode. No buffer moves. If the loss does not rise, nothing is perturbed.
      The loss is known in `nas.search` and `nas.Levels`; elsewhere nothing is perturbed.

    Args:
        attack: how to perturb.
        epsilon: at the last step.
        start: epsilon at the first step.
        steps: of the adversarial attack.

    Raises:
        ConfigError: `start` is above `epsilon`.

    References:
        Chen and Hsieh, Stabilizing Differentiable Architecture Search via Perturbation-based Regularization, ICML 2020,
        alg. 1; xiangning-chen/SmoothDARTS, `sota/cnn/train_search.py`; ruocwang/darts-pt, `attacker/perturb.py`.
    """

    perturbs = True
    schedule = "`epsilon` from 0.03 to 0.3, linear"

    def __init__(
        self,
        attack: Literal["random", "adversarial"] = "random",
        epsilon: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.3,
        start: NonNegative = 0.03,
        steps: Count = 7,
    ) -> None:
        if start > epsilon:
            raise ConfigError(f"perturbation: start must be at most epsilon, {epsilon:g}, got {start:g}")
        self.attack, self.epsilon, self.start, self.steps = attack, epsilon, start, steps

    def transform(self, weights: Mapping[str, Tensor | Sampled], moment: Moment) -> Mapping[str, Tensor | Sampled]:
        adversarial = self.attack == "adversarial"
        if moment.learns or not moment.training or (adversarial and moment.loss is None):
            return weights
        epsilon = linear(self.start, self.epsilon, moment.progress)
        dense = {label: w.detach() for label, w in weights.items() if isinstance(w, Tensor)}
        noisy = {label: _simplex(w + epsilon * self._noise(label, w, moment)) for label, w in dense.items()}
        if adversarial and moment.loss is not None:
            noisy = self._attacked(dense, noisy, epsilon, moment.loss)
        return {**weights, **noisy}

    def _noise(self, label: str, like: Tensor, moment: Moment) -> Tensor:
        """Uniform noise in (-1, 1) for each candidate, `(candidates,)`."""
        draw = Draw(moment.seed, label, moment.candidates[label], moment.step, moment.progress, random=True)
        return 2 * like.new_tensor(draw.uniform(f"perturbation {moment.turn}")) - 1

    def _attacked(self, around: Weights, start: Weights, epsilon: float, loss: LossOfWeights) -> Weights:
        """Mixing weights within `epsilon` of `around` at which the loss is higher; `around` if none are found."""
        with torch.no_grad():
            before = loss(around)
        now = start
        for _ in range(self.steps):
            inputs = {label: w.clone().requires_grad_() for label, w in now.items()}
            with torch.enable_grad():
                found = torch.autograd.grad(loss(inputs), list(inputs.values()), allow_unused=True)
            now = {
                label: _simplex(w + (now[label] + 2 * epsilon / self.steps * g.sign() - w).clamp(-epsilon, epsilon))
                for (label, w), g in zip(around.items(), map(_known, found, inputs.values()), strict=True)
            }
        with torch.no_grad():
            return now if loss(now) > before else around


def _known(gradient: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if gradient is None else gradient


def _simplex(weights: Tensor) -> Tensor:
    """The weights clamped to [0, 1] and normalized; if all are 0, one for the largest before."""
    clamped = weights.clamp(0, 1)
    total = clamped.sum()
    largest = torch.zeros_like(weights)
    largest[weights.argmax()] = 1.0
    return torch.where(total > 0, clamped / total.clamp_min(torch.finfo(weights.dtype).tiny), largest)
