"""Derivation policies: what one receives and returns, how a configuration names it, how it is called."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Container, Mapping
from typing import Any, Protocol

from nas.derive.candidates import existing
from nas.errors import ConfigError
from nas.genotype.decision import Choice, Decision
from nas.registry import kind

RESOURCES = {
    "decisions": "the decisions of the space, by label: `Mapping[str, Decision]`",
    "weights": "the mixing weights in eval mode of each decision that has arch parameters, `(candidates,)`, detached",
    "logits": "the arch parameters of these decisions, `(candidates,)`, detached",
    "costs": "the costs of the candidates of each decision, `Mapping[str, Sequence[float]]`; may be empty",
    "shares": "a function from a unit, `parameters` or `flops`, to the cost of a network as a sum: `Sequence[Share]`",
    "at_most": "limits by CANDIDATE or CELL/CANDIDATE (see `nas.derive.limits`); may be empty",
    "generator": "a `torch.Generator` on the CPU, seeded by the supernet's seed",
    "supernet": "the `Supernet` itself; a policy must leave its parameters, buffers and modes as they were",
    "evaluate": "a function from choices to the validation score of the supernet fixed to them; larger is better",
    "evaluate_recalibrated": "the same, with the statistics of batch norms computed again from training batches",
    "project": "begins a copy of the supernet to train between decisions: a `nas.derive.perturbation.Begin`",
}
"""What a policy can receive, by the name of its parameter."""


class Derivation(Protocol):
    """A derivation policy: turns what a search has learned into the choices of a genotype.

    A policy is a function. Each parameter that has the name of a resource (`RESOURCES`) receives this resource; the
    other resources are not passed. All other parameters are arguments that the configuration states.

    Example:
        >>> @nas.register("derivation", "sampled")
        ... def choose_sampled(decisions, weights, generator, *, power: float = 1.0):
        ...     sampled = {}
        ...     for label, weight in weights.items():  # Gumbel noise: the largest one is a sample
        ...         noise = -torch.empty(weight.shape).exponential_(generator=generator).log()
        ...         sampled[label] = (power * weight.log() + noise).softmax(0)
        ...     return choose_strongest(decisions, sampled)
        >>> supernet.derive(derivation={"name": "sampled", "power": 2.0})
    """

    def __call__(self, *args: Any, **resources: Any) -> Mapping[str, Choice]:
        """Return the choice of each decision that exists given the other choices, by label."""


def find_policy(entry: str | Mapping[str, Any] | Derivation, where: str = "derivation") -> Derivation:
    """Return the policy that an entry of a configuration names, with the arguments that it states.

    Args:
        entry: a name, a mapping of `name` and arguments, or a policy.
        where: the place of the entry in the configuration, for messages (`search.derivation`).

    Raises:
        UnknownNameError: no policy has this name.
        ConfigError: an argument is unknown, missing, or of another type.
    """
    if callable(entry):
        return entry
    function, arguments = kind("derivation").prepare(entry, where, tuple(RESOURCES))
    return functools.partial(function, **arguments)


def choose(
    derivation: str | Mapping[str, Any] | Derivation, decisions: Mapping[str, Decision], **resources: Any
) -> dict[str, Choice]:
    """Return the choices of a policy, called with the resources that it takes.

    Args:
        derivation: a policy, or what `find_policy` takes for one.
        decisions: the decisions of the space, by label.
        resources: what is at hand of `RESOURCES`; None if it is not.

    Raises:
        UnknownNameError: no policy has this name.
        ConfigError: the policy needs a resource that is not at hand, does not take the limits that are given, or
            returns choices that make no genotype of the space.
    """
    policy = find_policy(derivation)
    name = derivation["name"] if isinstance(derivation, Mapping) else getattr(derivation, "__name__", derivation)
    given = {"decisions": decisions, **{key: value for key, value in resources.items() if value is not None}}
    takes = {key: parameter for key, parameter in inspect.signature(policy).parameters.items() if key in RESOURCES}
    for key, parameter in takes.items():
        if parameter.default is parameter.empty and key not in given:
            raise ConfigError(f"derivation '{name}' needs '{key}', got nothing. Pass {RESOURCES[key]}")
    require_limits(name, takes, given.get("at_most"))
    choices = dict(policy(**{key: given[key] for key in takes if key in given}))
    for label, decision in existing(decisions, choices):
        if label not in choices or not decision.accepts(choices[label]):
            found = repr(choices[label]) if label in choices else "nothing"
            raise ConfigError(f"derivation '{name}': '{label}' must be {decision.expected}, got {found}")
    if extra := [label for label in choices if label not in decisions or not decisions[label].active(choices)]:
        raise ConfigError(f"derivation '{name}': '{extra[0]}' does not exist given the other choices. Leave it out")
    return choices


def require_limits(name: object, takes: Container[str], at_most: object) -> None:
    """Raise `ConfigError` if there are limits, and a policy with these parameters takes none."""
    if at_most and "at_most" not in takes:
        raise ConfigError(f"derivation '{name}' takes no limits, got at_most={at_most}. Leave them out")
