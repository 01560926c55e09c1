"""Terms on the arch parameters, found by name, and the schedule of their weight.

A term is a function of the supernet that returns a scalar to minimise. Means are over decisions, each counting the same
whatever its number of candidates; decisions with a single candidate are left out.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import msgspec
import torch
from torch import Tensor

from nas.cost import Cost
from nas.errors import ConfigError, UnknownNameError
from nas.supernet import Supernet


class Regularizer(Protocol):
    """A term of the upper level's loss."""

    def __call__(self, supernet: Supernet, /) -> Tensor:
        """A scalar, differentiable with respect to `supernet.arch`."""


class Term(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A term as a configuration names it."""

    name: str
    weight: float
    ramp: bool = False
    """Whether the weight grows from 0, as `nas.regularize.ramp` says, or is the same from the first step."""


def entropy(supernet: Supernet) -> Tensor:
    """Mean of `-sum_i w_i log w_i / log n` over the mixing weights, in [0, 1]: 1 where uniform, 0 where one-hot.

    Minimising it sharpens the decisions.
    """
    return _mean(_entropy(w) / math.log(len(w)) for w in _several(supernet.mixing_weights()))


def l2_to_uniform(supernet: Supernet) -> Tensor:
    """Mean of `sum_i (w_i - 1/n)^2 / (1 - 1/n)` over the mixing weights, in [0, 1]: 0 where uniform, 1 where one-hot.

    Minimising it keeps the decisions open.
    """
    return _mean((w - 1 / len(w)).square().sum() / (1 - 1 / len(w)) for w in _several(supernet.mixing_weights()))


def beta_decay(supernet: Supernet) -> Tensor:
    """Mean of `log sum_i exp a_i` over the arch parameters (beta-DARTS, Ye et al., CVPR 2022).

    Its gradient is the softmax: minimising it decays the largest logits most.
    """
    return _mean(logits.logsumexp(0) for logits in _several(dict(supernet.arch.items())))


def expected_cost(supernet: Supernet, *, cost: Cost, reference: float | None = None, log: bool = False) -> Tensor:
    """The expected cost over `reference` (where None that of uniform mixing weights), or the logarithm of this ratio.

    Raises `ConfigError` for a reference that is not positive: nothing to compare with.
    """
    reference = cost.uniform if reference is None else reference
    if not reference > 0:
        raise ConfigError(f"'expected_cost' expects a reference cost above 0, found {reference:g}")
    ratio = cost.expected(supernet.mixing_weights()) / reference
    return ratio.log() if log else ratio


REGULARIZERS: Mapping[str, Callable[..., Tensor]] = {
    "entropy": entropy,
    "expected_cost": expected_cost,
    "expected_flops": expected_cost,
    "expected_latency": expected_cost,
    "l2_to_uniform": l2_to_uniform,
    "beta_decay": beta_decay,
}
"""The expected costs differ in what the `cost` that they are given counts: parameters, FLOPs, milliseconds."""


def regularizer(name: str, **arguments: Any) -> Regularizer:
    """The term `name` with arguments; raises `UnknownNameError`, or `ConfigError` for arguments it does not take."""
    if name not in REGULARIZERS:
        raise UnknownNameError("regularizer", name, REGULARIZERS)
    try:
        inspect.signature(REGULARIZERS[name]).bind(None, **arguments)
    except TypeError as error:
        raise ConfigError(f"regularizer '{name}': {error}") from error
    return functools.partial(REGULARIZERS[name], **arguments)


def penalty(supernet: Supernet, terms: Mapping[Term, Regularizer], ramped: float = 1.0) -> Tensor:
    """The weighted sum of terms, a scalar; `ramped`, from `ramp`, scales those that ask for it."""
    weights = {term: term.weight * (ramped if term.ramp else 1.0) for term in terms}
    return sum((w * terms[term](supernet) for term, w in weights.items() if w), start=torch.zeros(()))


def ramp(step: int, total: int, start: float = 0.0, end: float = 1.0) -> float:
    """A share in [0, 1]: 0 until `start` (the end of warm-up), then linear, 1 from `end` on; both fractions of `total`.

    Raises `ConfigError` unless 0 <= start < end <= 1 and there are steps.
    """
    if not (0 <= start < end <= 1 and total > 0):
        raise ConfigError(f"a ramp expects 0 <= start < end <= 1 and total > 0, found {start}, {end} and {total}")
    return min(max((step / total - start) / (end - start), 0.0), 1.0)


def _several(tensors: Mapping[str, Tensor]) -> list[Tensor]:
    return [tensor for tensor in tensors.values() if len(tensor) > 1]


def _entropy(weights: Tensor) -> Tensor:
    # Clamped inside the logarithm only: a weight that has underflowed to 0 then has a finite gradient.
    return -(weights * weights.clamp_min(torch.finfo(weights.dtype).tiny).log()).sum()


def _mean(values: Iterable[Tensor]) -> Tensor:
    collected = list(values)
    return torch.stack(collected).mean() if collected else torch.zeros(())
