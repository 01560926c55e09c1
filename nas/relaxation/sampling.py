"""Relaxations whose mixing weights depend on the step of a search, on which random numbers depend in turn."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from nas.space.mixed import Sampled

Result = TypeVar("Result")


@runtime_checkable
class Sampling(Protocol):
    """A relaxation whose mixing weights depend on the step of a search.

    Example:
        >>> @nas.register("relaxation", "noisy")
        ... class Noisy(nn.Module):
        ...     def forward(self, logits):
        ...         return logits.softmax(-1)
        ...     def draw(self, logits, draw):
        ...         return (logits + logits.new_tensor(draw.gumbel())).softmax(-1)
    """

    def draw(self, logits: Tensor, draw: Draw) -> Tensor | Sampled:
        """Return the mixing weights of one decision in one step, `(candidates,)`.

        Args:
            logits: arch parameters of the decision, `(candidates,)`. They require a gradient in a step that moves them.
            draw: the step, and its random numbers, which are the only ones that the weights depend on.

        Returns:
            Weights of all candidates; or a `Sampled`, for which only some candidates are computed.
        """


@dataclass(frozen=True)
class Draw:
    """One decision in one step of a search. Its random numbers are a function of (seed, label, candidate, step)."""

    seed: int
    label: str
    candidates: Sequence[str | int]
    step: int
    progress: float
    """The completed share of the search, in [0, 1]."""
    random: bool
    """False in eval mode: then `gumbel` returns zeros."""
    turn: int = 0
    """The number of this forward pass among those of the step, from 0."""
    forward: Pass | None = None
    """The forward pass, which reads the logits of all decisions back from the device at once."""

    @cached_property
    def logits(self) -> Sequence[float]:
        """The logits as numbers, to select candidates by."""
        return () if self.forward is None else self.forward.logits[self.label]

    def together(self, function: Callable[[Sequence[Draw]], Sequence[Result]]) -> Result:
        """Return the result for this draw of a function of all draws of the pass, which is called once a pass."""
        if self.forward is None:
            return function([self])[0]
        found: Result = self.forward.results(function)[self.label]
        return found

    def uniform(self, purpose: str = "") -> list[float]:
        """Draw a number in (0, 1) for each candidate; different ones for each purpose."""
        end = f"\0{purpose}" if purpose else ""
        return [_uniform(f"{self.seed}\0{self.label}\0{candidate}\0{self.step}{end}") for candidate in self.candidates]

    def gumbel(self, purpose: str = "") -> list[float]:
        """Draw a number from Gumbel(0, 1) for each candidate; zeros in eval mode."""
        if not self.random:
            return [0.0] * len(self.candidates)
        return [-math.log(-math.log(u)) for u in self.uniform(purpose)]

    def ranked(self, noise: Sequence[float]) -> list[int]:
        """Return the candidates by position, the largest sum of logit and noise first.

        With Gumbel noise the first k of them are a sample of k candidates without replacement, each drawn with
        probability softmax(logits) among those that are left (Kool et al., ICML 2019).
        """
        scores = [a + g for a, g in zip(self.logits, noise, strict=True)]
        return sorted(range(len(scores)), key=lambda i: -scores[i])


def draws(
    arch: Mapping[str, Tensor],
    candidates: Mapping[str, Sequence[str | int]],
    *,
    seed: int,
    step: int,
    progress: float,
    random: bool,
    turn: int = 0,
) -> Iterator[tuple[str, Tensor, Draw]]:
    """Yield label, logits and draw of each decision. The logits are read back from the device in at most one transfer.

    Args:
        arch: logits `(candidates,)` by label.
        candidates: by label.
        seed: of the search.
        step: of the search, from 0.
        progress: completed share of the search, in [0, 1].
        random: false in eval mode.
        turn: number of the forward pass in the step.
    """
    forward = Pass(arch)
    for label in arch:
        forward.draws.append(Draw(seed, label, candidates[label], step, progress, random, turn, forward))
    for draw in forward.draws:
        yield draw.label, arch[draw.label], draw


class Pass:
    """What the draws of one forward pass share; each is computed when first needed.

    Args:
        arch: logits `(candidates,)` by label.
    """

    def __init__(self, arch: Mapping[str, Tensor]) -> None:
        self._arch = arch
        self.draws: list[Draw] = []
        self._results: dict[Callable[..., Any], dict[str, Any]] = {}

    @cached_property
    def logits(self) -> dict[str, list[float]]:
        """The logits as numbers, by label."""
        values: list[float] = torch.cat([logits.detach() for logits in self._arch.values()]).tolist()
        ends = accumulate(len(logits) for logits in self._arch.values())
        return {
            label: values[end - len(logits) : end]
            for (label, logits), end in zip(self._arch.items(), ends, strict=True)
        }

    def results(self, function: Callable[[Sequence[Draw]], Sequence[Any]]) -> dict[str, Any]:
        """The results of a function of all draws, by label."""
        if function not in self._results:
            labels = (draw.label for draw in self.draws)
            self._results[function] = dict(zip(labels, function(self.draws), strict=True))
        return self._results[function]


def learns(logits: Tensor) -> bool:
    """Return whether a pass computes the gradient of the logits; that of a step of other parameters does not."""
    return logits.requires_grad and torch.is_grad_enabled()


def one_hot(choice: int, like: Tensor) -> Tensor:
    """Return weights of the shape, dtype and device of `like`: 1 at `choice`, else 0."""
    weights = torch.zeros_like(like)
    weights[choice] = 1.0
    return weights


def straight_through(choice: int, soft: Tensor) -> Tensor:
    """Return one-hot weights `(candidates,)` with the gradient of `soft` (Bengio et al., arXiv:1308.3432, 2013)."""
    return one_hot(choice, soft) + (soft - soft.detach())


def linear(start: float, end: float, progress: float) -> float:
    """Return a value that changes linearly over a search; `progress` in [0, 1] is its completed share."""
    return start + progress * (end - start)


def _uniform(text: str) -> float:
    """A number in (0, 1), the same for the same text."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") // 2**12 + 0.5) / 2**52
