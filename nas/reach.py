"""Which level reaches which loss: levels that could have no effect are an error before a run begins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn

from nas.errors import ConfigError
from nas.levels import Level
from nas.relaxation.sampling import Sampling
from nas.supernet import Supernet


def depends_on(loss: Tensor, parameters: Mapping[str, Tensor], terms: Iterable[Tensor] = ()) -> set[str]:
    """The names of those parameters, which are leaves, that the graph of `loss` leads to, not by way of its `terms`."""
    names = {id(parameter): name for name, parameter in parameters.items()}
    found, seen, waiting = set(), {term.grad_fn for term in terms}, [loss.grad_fn]
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
        if not any(seen[each] & set(owned[name]) for each in (name, *_answering(level))):
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


def require_decided(
    model: nn.Module, levels: Mapping[str, Level], owned: Mapping[str, Sequence[str]], seen: Mapping[str, set[str]]
) -> None:
    """Raise `ConfigError` for a decision of a supernet whose arch parameter would never move for the sake of a loss.

    Under a relaxation that samples, decisions inside candidates are left out: those that were not drawn are unused.

    Args:
        model: the supernet; any other network passes.
        levels: from the lowest to the highest.
        owned: the parameters of each level.
        seen: the parameters that each level's loss depends on, its regularizers left out.
    """
    if not isinstance(model, Supernet):
        return
    sampled = isinstance(model.relaxation, Sampling)
    for label, decision in model.decisions.items():
        level = next((name for name in levels if f"arch.{label}" in owned[name]), None)
        if level is None or (sampled and _inside(model, label)):
            continue
        if not any(f"arch.{label}" in seen[each] for each in (level, *_answering(levels[level]))):
            raise ConfigError(
                f"decision '{label}' has no part in the loss '{levels[level].loss}' of level '{level}', so it could not"
                f" be searched. The network must compute its output with the module that choose"
                f"{'' if decision.kind == 'operation' else '.' + decision.kind}('{label}', ...) returned"
            )


def _inside(supernet: Supernet, label: str) -> bool:
    """Whether a decision exists only where a candidate, or a depth, is chosen; all in-edges of a node are computed."""
    conditions = supernet.decisions[label].conditions
    outer = [parent for parent, _ in conditions if supernet.decisions[parent].kind == "inputs"]
    return bool(conditions) and all(_inside(supernet, parent) for parent in outer)


def _answering(level: Level) -> list[str]:
    """The levels below whose response enters the gradient of this one."""
    return [below for below, method in level.hypergradient.items() if method.get("name") != "first_order"]


def _some(parameters: Sequence[str]) -> str:
    return ", ".join(parameters[:2]) + (f" and {len(parameters) - 2} more" if len(parameters) > 2 else "")
