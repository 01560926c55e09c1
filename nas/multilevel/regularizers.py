"""Regularizers: terms on the arch parameters that a level adds to its loss, and the schedule of their weight.

A regularizer is a function of the supernet and of keyword arguments that returns a scalar to minimize. If its signature
names `cost`, `flops` or `latency`, it gets that `Cost` of the search (parameters, FLOPs, milliseconds). All other
arguments come from the configuration: `{name: no_skips, weight: 0.1, candidate: skip_connect}`. Means are over
decisions, which all count the same, however many candidates they have; decisions with one candidate are left out.

Example:
    >>> @nas.register("regularizer", "no_skips")
    ... def no_skips(supernet, *, candidate: str = "skip_connect"):
    ...     total = torch.zeros(())
    ...     for label, weights in supernet.mixing_weights().items():
    ...         names = supernet.decisions[label].candidates
    ...         total = total + sum(w for w, name in zip(weights, names) if name == candidate)
    ...     return total
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from nas.cost.space_cost import Cost
from nas.declarations import SHARES, declares
from nas.derive.tradeoffs import best_at_each_cost
from nas.errors import ConfigError
from nas.registry import Positive, checked, kind, takes
from nas.supernet import Supernet

Resources = Mapping[str, Callable[[], Any]]
"""What regularizers may ask for by name (`cost`, `flops`, `latency`), each computed only if one asks for it."""


class Regularizer(Protocol):
    """A term of a level's loss, once its arguments are bound."""

    def __call__(self, supernet: Supernet, /) -> Tensor:
        """Return a scalar, differentiable with respect to `supernet.arch`."""


@dataclass(frozen=True)
class Term:
    """A regularizer with its weight, as an entry of a configuration names it."""

    name: str
    """Its name in the records of a run: `record_as`, or else the name of the regularizer."""
    weight: float
    ramp: bool
    """Whether the weight grows from 0 after the warm-up (see `ramp`), or is constant."""
    function: Regularizer

    def __call__(self, supernet: Supernet, ramped: float = 1.0) -> Tensor:
        """Return the weighted term, a scalar; `ramped` scales its weight if it has a ramp."""
        weight = self.weight * (ramped if self.ramp else 1.0)
        return weight * self.function(supernet) if weight else torch.zeros(())


def complete_terms(entries: Sequence[Mapping[str, Any]], where: str) -> tuple[dict[str, Any], ...]:
    """Check the regularizers of a level, and return them with all their arguments.

    Raises:
        UnknownNameError: no regularizer of such a name.
        ConfigError: an argument, `weight`, `ramp` or `record_as` is unknown, missing or invalid, or two terms would be
            recorded under one name.
    """
    complete = [kind("regularizer").complete(entry, f"{where}[{i}]") for i, entry in enumerate(entries)]
    for i, entry in enumerate(complete):
        if "weight" not in entry:
            raise ConfigError(f"{where}[{i}]: regularizer '{entry['name']}' needs the field 'weight'")
        entry["weight"] = checked(entry["weight"], float, f"{where}[{i}].weight")
        entry["ramp"] = checked(entry.get("ramp", False), bool, f"{where}[{i}].ramp")
        name = checked(entry.get("record_as", entry["name"]), str, f"{where}[{i}].record_as")
        if name in (other.get("record_as", other["name"]) for other in complete[:i]):
            raise ConfigError(f"{where}: two are recorded as '{name}'; give one of them a different 'record_as'")
    return tuple(complete)


def create_terms(entries: Sequence[Mapping[str, Any]], where: str, resources: Resources) -> list[Term]:
    """Create the terms that a level's regularizers name; raises as `complete_terms`, and for a resource not given."""
    terms = []
    for i, entry in enumerate(complete_terms(entries, where)):
        make, arguments = kind("regularizer").prepare(entry, f"{where}[{i}]")
        asked = takes(make, kind("regularizer").given)
        if lacking := [name for name in asked if name not in resources]:
            raise ConfigError(f"{where}[{i}]: regularizer '{entry['name']}' needs '{lacking[0]}', which is not given")
        bound = functools.partial(make, **arguments, **{name: resources[name]() for name in asked})
        terms.append(Term(entry.get("record_as", entry["name"]), entry["weight"], entry["ramp"], bound))
    return terms


@declares(reads="mixing weights", needs=SHARES)
def entropy(supernet: Supernet) -> Tensor:
    """Return the mean of `-sum_i w_i log w_i / log n` over mixing weights, in [0, 1]: 1 if uniform, 0 if one-hot.

    To minimize it sharpens the decisions.
    """
    return _mean(_entropy(w) / math.log(len(w)) for w in _several(supernet.mixing_weights()))


@declares(reads="mixing weights", needs=SHARES)
def l2_to_uniform(supernet: Supernet) -> Tensor:
    """Return the mean of `sum_i (w_i - 1/n)^2 / (1 - 1/n)` over mixing weights, in [0, 1]: 0 if uniform, 1 if one-hot.

    To minimize it keeps the decisions open.
    """
    return _mean((w - 1 / len(w)).square().sum() / (1 - 1 / len(w)) for w in _several(supernet.mixing_weights()))


@declares(reads="logits")
def beta_decay(supernet: Supernet) -> Tensor:
    """Return the mean of `log sum_i exp a_i` over the arch parameters.

    Its gradient is the softmax: to minimize it decays the largest logits most.

    References:
        Ye et al., beta-DARTS: Beta-Decay Regularization for Differentiable Architecture Search, CVPR 2022.
    """
    return _mean(logits.logsumexp(0) for logits in _several(supernet.candidate_logits()))


@declares(reads="mixing weights", needs=SHARES)
def expected_cost(
    supernet: Supernet,
    *,
    cost: Cost,
    reference: Positive | None = None,
    log: bool = False,
    target: Positive | None = None,
) -> Tensor:
    """Return the expected number of parameters, over `reference`; with a target, how far it is above.

    With `target` it is the expected number of a derived network: `max(E / target - 1, 0)`, or `max(log(E / target), 0)`
    with `log`. In-edges of a node are then drawn at random, as many as it keeps. Without a target all of them count.

    Args:
        supernet: the supernet.
        cost: parameters of every candidate.
        reference: the number to divide by; by default that under uniform mixing weights.
        log: return the logarithm of the ratio.
        target: the number up to which nothing is added to the loss, in place of `reference`.

    Raises:
        ConfigError: no candidate costs anything, `target` and `reference` are both given, or every genotype costs more
            than the target; the message says what the cheapest costs.

    References:
        Tan et al., MnasNet, CVPR 2019, section 3.1: a penalty only above the target, there on the latency.
    """
    return _expected(supernet, cost, reference, log, target)


@declares(reads="mixing weights", needs=SHARES)
def expected_flops(
    supernet: Supernet,
    *,
    flops: Cost,
    reference: Positive | None = None,
    log: bool = False,
    target: Positive | None = None,
) -> Tensor:
    """Return the expected FLOPs (1 multiply-add = 2 FLOPs) for the task's example; see `expected_cost`."""
    return _expected(supernet, flops, reference, log, target)


@declares(reads="mixing weights", needs=SHARES)
def expected_latency(
    supernet: Supernet,
    *,
    latency: Cost,
    reference: Positive | None = None,
    log: bool = False,
    target: Positive | None = None,
) -> Tensor:
    """Return the expected latency in milliseconds, by the table `search.latency`; see `expected_cost`."""
    return _expected(supernet, latency, reference, log, target)


def ramp(step: int, total: int, start: float = 0.0, end: float = 1.0) -> float:
    """Return a share in [0, 1]: 0 until `start` (the end of the warm-up), then linear, and 1 from `end` on.

    Args:
        step: step of the run, from 0.
        total: number of steps.
        start: share of the steps at which the ramp begins.
        end: share of the steps at which it ends.

    Raises:
        ConfigError: not `0 <= start < end <= 1`, or no steps.
    """
    if not (0 <= start < end <= 1 and total > 0):
        raise ConfigError(f"a ramp must have 0 <= start < end <= 1 and total > 0, got {start}, {end} and {total}")
    return min(max((step / total - start) / (end - start), 0.0), 1.0)


def _expected(supernet: Supernet, cost: Cost, reference: float | None, log: bool, target: float | None) -> Tensor:
    weights = supernet.mixing_weights()
    if target is not None:
        if reference is not None:
            raise ConfigError(f"an expected cost must have 'target' or 'reference', got {target:g} and {reference:g}")
        if target < (least := _cheapest(cost)):
            raise ConfigError(
                f"the 'target' of an expected cost must be at least {least:g}, which the cheapest network costs, got"
                f" {target:g}. Raise it"
            )
        like = next(iter(weights.values()), torch.zeros(()))
        nodes = [decision for decision in supernet.decisions.values() if decision.kind == "inputs"]
        counts = {node.label: len(node.candidates) for node in nodes}
        weights |= {node.label: like.new_full((counts[node.label],), node.keep / counts[node.label]) for node in nodes}
        reference = target
    reference = cost.uniform if reference is None else reference
    if not reference > 0:
        raise ConfigError(
            f"the cost under uniform mixing weights must be above 0, got {reference:g}; state 'reference'"
        )
    ratio = cost.expected(weights) / reference
    value = ratio.log() if log else ratio
    return value if target is None else (value if log else value - 1).relu()


@functools.cache
def _cheapest(cost: Cost) -> float:
    """The cost of the cheapest genotype of a space."""
    return best_at_each_cost(cost.decisions, {}, cost.shares)[0].cost


def _several(tensors: Mapping[str, Tensor]) -> list[Tensor]:
    return [tensor for tensor in tensors.values() if len(tensor) > 1]


def _entropy(weights: Tensor) -> Tensor:
    # Clamped inside the logarithm only: a weight that underflows to 0 has a finite gradient.
    return -(weights * weights.clamp_min(torch.finfo(weights.dtype).tiny).log()).sum()


def _mean(values: Iterable[Tensor]) -> Tensor:
    collected = list(values)
    return torch.stack(collected).mean() if collected else torch.zeros(())
