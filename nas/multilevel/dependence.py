"""Which level affects which loss: a level that could have no effect is an error before a run begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from nas.distributed.ranks import alone
from nas.errors import ConfigError
from nas.hypergradient.response import leaves
from nas.multilevel.level import Level
from nas.multilevel.loss_evaluation import Inputs, LossEvaluation
from nas.relaxation.sampling import Sampling
from nas.supernet import Supernet


def require_influence(evaluation: LossEvaluation, owned: Mapping[str, Sequence[str]]) -> None:
    """Evaluate each loss once; raise `ConfigError` for one that is no scalar, and a level or decision without effect.

    See `require_reached` and `require_decided`. Levels that minimize the same are evaluated once.
    """
    seen: dict[str, set[str]] = {}
    by_loss: dict[str, set[str]] = {}
    values = leaves(evaluation.parameters)
    with evaluation.random_kept(), alone():
        for name, level in evaluation.levels.items():
            inputs = Inputs(evaluation.batch(level.split, 0), 1.0)
            if like := [each for each in seen if level.minimises_as(evaluation.levels[each])]:
                seen[name], by_loss[name] = seen[like[0]], by_loss[like[0]]
            else:
                loss, objective, _ = evaluation.loss(name, values, inputs, moves_buffers=False)
                if not isinstance(loss, Tensor) or loss.numel() != 1:
                    found = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
                    raise ConfigError(f"level '{name}': its loss '{level.loss}' must be a scalar tensor, got {found}")
                if level.scale_free and not loss > 0:
                    raise ConfigError(
                        f"level '{name}': its loss '{level.loss}' must be above 0 for 'scale_free', got"
                        f" {loss.item():.3g}. Use another loss, or scale_free: false"
                    )
                seen[name], by_loss[name] = depends_on(objective, values), depends_on(loss, values)
    require_reached(evaluation.levels, owned, seen)
    require_decided(evaluation.model, evaluation.levels, owned, by_loss)


def depends_on(loss: Tensor, parameters: Mapping[str, Tensor]) -> set[str]:
    """Names of the parameters, leaves, in the graph of a loss."""
    names = {id(parameter): name for name, parameter in parameters.items()}
    found, seen, waiting = set(), set[object](), [loss.grad_fn]
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
    """Raise `ConfigError` for a level that affects neither its own loss nor the top loss.

    A level must affect its own loss, directly or through a lower level that responds to it, and it must affect the top
    loss through some chain of losses.

    Args:
        levels: by name, from the lowest to the highest.
        owned: the parameters of each level.
        seen: the parameters that each level's loss depends on.
    """
    for name, level in levels.items():
        if not any(seen[each] & set(owned[name]) for each in (name, *responding(level))):
            raise ConfigError(
                f"level '{name}': its loss '{level.loss}' must depend on its parameters ({_some(owned[name])}), got a"
                " loss that depends on none of them. Use another loss, or a 'hypergradient' method for a level below"
            )
    names = list(levels)
    reaching = {names[-1]}
    for name in reversed(names[:-1]):
        above = names[names.index(name) + 1 :]
        if any(higher in reaching and seen[higher] & set(owned[name]) for higher in above):
            reaching.add(name)
            continue
        losses = ", ".join(f"'{levels[higher].loss}' of level '{higher}'" for higher in above)
        raise ConfigError(
            f"level '{name}': the loss of a level above must depend on its parameters ({_some(owned[name])}), got"
            f" {losses}. Remove the level, or use another loss above it"
        )


def require_decided(
    model: nn.Module, levels: Mapping[str, Level], owned: Mapping[str, Sequence[str]], seen: Mapping[str, set[str]]
) -> None:
    """Raise `ConfigError` for a decision of a supernet whose arch parameter affects no loss.

    If the relaxation samples, decisions inside candidates do not count: those that were not drawn are unused.

    Args:
        model: a supernet is checked; any other network passes.
        levels: by name, from the lowest to the highest.
        owned: the parameters of each level.
        seen: the parameters that each level's loss without its regularizers depends on.
    """
    if not isinstance(model, Supernet):
        return
    sampled = isinstance(model.relaxation, Sampling)
    for label, decision in model.decisions.items():
        level = next((name for name in levels if f"arch.{label}" in owned[name]), None)
        if level is None or (sampled and _is_conditional(model, label)):
            continue
        if not any(f"arch.{label}" in seen[each] for each in (level, *responding(levels[level]))):
            call = "choose" if decision.kind == "operation" else f"choose.{decision.kind}"
            raise ConfigError(
                f"decision '{label}' must affect the loss '{levels[level].loss}' of level '{level}', got a loss that"
                f" does not depend on it. Compute the network's output with the module that {call}('{label}', ...)"
                " returned"
            )


def _is_conditional(supernet: Supernet, label: str) -> bool:
    """Whether a decision exists only for some choices elsewhere; in the supernet all in-edges of a node exist."""
    conditions = supernet.decisions[label].conditions
    outer = [parent for parent, _ in conditions if supernet.decisions[parent].kind == "inputs"]
    return bool(conditions) and all(_is_conditional(supernet, parent) for parent in outer)


def responding(level: Level) -> list[str]:
    """The levels below whose response enters the gradient of this one."""
    return [below for below, method in level.hypergradient.items() if method.get("name") != "first_order"]


def _some(parameters: Sequence[str]) -> str:
    return ", ".join(parameters[:2]) + (f" and {len(parameters) - 2} more" if len(parameters) > 2 else "")
