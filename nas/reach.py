"""Which level reaches which loss: levels that could have no effect are an error before a run begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from nas.errors import ConfigError
from nas.levels import Level


def depends_on(loss: Tensor, parameters: Mapping[str, Tensor]) -> set[str]:
    """The names of those parameters, which are leaves, that the graph of `loss` leads to."""
    names = {id(parameter): name for name, parameter in parameters.items()}
    found, seen, waiting = set(), set(), [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (name := names.get(id(getattr(node, "variable", None)))) is not None:
            found.add(name)
        waiting.extend(following for following, _ in node.next_functions)
    return found


def require_reached(
    levels: Mapping[str, Level], owned: Mapping[str, Sequence[str]], seen: Mapping[str, set[str]]
) -> None:
    """Raise `ConfigError` for a level without influence on its own loss, or that never reaches the highest loss.

    A level influences a loss that depends on it, or that a level below answers to. It reaches a loss that depends on
    it, and what is reached by the level that such a loss belongs to.

    Args:
        levels: from the lowest to the highest.
        owned: the parameters of each level.
        seen: the parameters that each level's loss depends on.
    """
    for name, level in levels.items():
        answering = [below for below, method in level.hypergradient.items() if method.get("name") != "first_order"]
        if not any(seen[each] & set(owned[name]) for each in (name, *answering)):
            raise ConfigError(
                f"level '{name}': the loss '{level.loss}' depends on none of its parameters ({_some(owned[name])})"
            )
    names = list(levels)
    reaching = {names[-1]}
    for name in reversed(names[:-1]):
        above = names[names.index(name) + 1 :]
        if any(higher in reaching and seen[higher] & set(owned[name]) for higher in above):
            reaching.add(name)
            continue
        told = ", ".join(f"'{levels[higher].loss}' of level '{higher}'" for higher in above)
        raise ConfigError(
            f"level '{name}' never reaches the upper loss: its parameters ({_some(owned[name])}) have no part in {told}"
        )


def _some(parameters: Sequence[str]) -> str:
    return ", ".join(parameters[:2]) + (f" and {len(parameters) - 2} more" if len(parameters) > 2 else "")
