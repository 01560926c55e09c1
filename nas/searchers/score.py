"""What a score is: a function that judges a genotype; larger is better."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from nas.cost.network_cost import Unit, measure
from nas.errors import ConfigError
from nas.genotype.file import Genotype
from nas.registry import kind
from nas.searchers.searcher import shown

LOWEST = -1e9
"""The score of a network of which a measure is not defined, such as one whose output is constant."""

Entry = str | Mapping[str, Any] | Callable[..., float]
"""A name, a mapping of `name` and arguments, or a function."""

RESOURCES = {
    "genotype": "the genotype",
    "cost": "a function from a unit, parameters or flops, to the cost of its network",
    "network": "its network at new initial weights, in train mode; a score may change it",
    "inputs": "the inputs of the network for one batch: a tuple of tensors `(batch, ...)`",
    "example": "inputs of the same form with batch size 1",
    "loss": "a function from a network to its scalar loss on that batch",
    "retrained": "a function from (split to train on, split to score on) to the task's score of the retrained network",
    "shared": "a function from (folder of a search, split to score on, batches) to the task's score of its supernet",
}
"""What a score can receive, by the name of its parameter."""


class Score(Protocol):
    """A score: a function that judges a genotype, often by its untrained network.

    Each parameter that has the name of a resource (`RESOURCES`) receives this resource. All other parameters are
    arguments that the configuration states. Larger is better.

    Example:
        >>> @nas.register("score", "depth")
        ... def depth(network):
        ...     return sum(isinstance(module, nn.Conv2d) for module in network.modules())
        >>> genotype = nas.find_space("nas-bench-201").sample(torch.Generator().manual_seed(0), cells=1)
        >>> zero_cost("depth", genotype, (torch.zeros(2, 3, 8, 8),)) > 0
        True
    """

    def __call__(self, *args: Any, **resources: Any) -> float:
        """Return the score."""


def find_score(entry: Entry, where: str = "score") -> functools.partial[float]:
    """Return the score that an entry of a configuration names, with the arguments that it states.

    Args:
        entry: a name, a mapping of `name` and arguments, or a function.
        where: the place of the entry in the configuration, for messages.

    Raises:
        UnknownNameError: no score has this name.
        ConfigError: an argument is unknown, missing, or of another type.
    """
    if callable(entry):
        return functools.partial(entry)
    function, arguments = kind("score").prepare(entry, where, tuple(RESOURCES))
    return functools.partial(function, **arguments)


def needs(score: Callable[..., float], resource: str) -> bool:
    """Whether a score receives a resource."""
    return resource in inspect.signature(score).parameters


def judged(score: Callable[..., float], name: str, genotype: Genotype, given: Mapping[str, Callable[[], Any]]) -> float:
    """Return the score of a genotype.

    Args:
        score: as `find_score` returns it.
        name: of the score, for messages.
        genotype: what is judged.
        given: for each resource at hand a function that returns it, called if the score receives it.

    Raises:
        ConfigError: a resource is not at hand, or the score is not a finite number.
    """
    resources = {}
    for resource in RESOURCES:
        if needs(score, resource):
            if resource not in given:
                raise ConfigError(f"score '{name}' needs '{resource}', got nothing: {RESOURCES[resource]}")
            resources[resource] = given[resource]()
    value = score(**resources)
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"score '{name}' must be a finite number, got {value!r} for {shown(genotype.choices)}")
    return float(value)


def zero_cost(
    entry: Entry,
    genotype: Genotype,
    inputs: tuple[Tensor, ...],
    loss: Callable[[nn.Module], Tensor] | None = None,
    *,
    seed: int = 0,
) -> float:
    """Return the score of a genotype whose network is not trained.

    Args:
        entry: a name, a mapping of `name` and arguments, or a function.
        genotype: what is judged.
        inputs: of its network, `(batch, ...)` each.
        loss: a function from a network to its scalar loss, for scores that need it.
        seed: of the initial weights.

    Raises:
        ConfigError: the score needs more than this, or is not a finite number.

    Example:
        >>> genotype = nas.find_space("nas-bench-201").sample(torch.Generator().manual_seed(0), cells=1)
        >>> zero_cost("params", genotype, (torch.zeros(1, 3, 8, 8),)) == cost.network_cost.measure(genotype)
        True
    """
    given: dict[str, Callable[[], Any]] = {
        "genotype": lambda: genotype,
        "cost": lambda: cost_of(genotype, lambda: tuple(each[:1] for each in inputs)),
        "network": lambda: genotype.build(seed=seed).train(),
        "inputs": lambda: inputs,
        "example": lambda: tuple(each[:1] for each in inputs),
    }
    if loss is not None:
        given["loss"] = lambda: loss
    return judged(find_score(entry), name_of(entry), genotype, given)


def cost_of(genotype: Genotype, example: Callable[[], tuple[Tensor, ...]]) -> Callable[[Unit], float]:
    """Return the function from a unit to the cost of a genotype's network; `example` makes inputs for FLOPs."""
    return lambda unit: measure(genotype, unit, example() if unit == "flops" else None)


def name_of(entry: Entry) -> str:
    """Return the name of a score."""
    if callable(entry):
        return getattr(entry, "__name__", repr(entry))
    return entry if isinstance(entry, str) else str(entry["name"])
