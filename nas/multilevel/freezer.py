"""Freezing of operations in a search: which gradients the rule is given, and what it has frozen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from nas.errors import ConfigError
from nas.hypergradient.response import Parameters
from nas.multilevel.level import Level
from nas.multilevel.operation_freezing import Freezing, Gradients, operations_of
from nas.registry import kind
from nas.supernet import Supernet


class Freezer:
    """Freezes operations of one level.

    Args:
        rule: decides.
        operations: the parameters of each operation, by operation.
        above: the level of the arch parameters, whose gradients are those of validation.
    """

    def __init__(self, rule: Freezing, operations: Mapping[str, tuple[str, ...]], above: str) -> None:
        self.rule, self.operations, self.above = rule, dict(operations), above
        self.frozen: dict[str, tuple[str, ...]] = {}
        """The parameters of the frozen operations, by operation."""
        self._training: Parameters = {}

    def watched(self) -> list[str]:
        """The parameters whose validation gradient is needed."""
        return [p for operation in self._live() for p in self.operations[operation]] if self._training else []

    def trained(self, gradients: Parameters) -> None:
        """Keep the gradients of a step of the level."""
        self._training = {p: gradients[p].detach() for operation in self._live() for p in self.operations[operation]}

    def validated(self, gradients: Parameters) -> list[str]:
        """Let the rule judge the gradients of a step of the level above; returns what it freezes."""
        if not self._training:
            return []
        training = {p: gradient.to(gradients[p].device) for p, gradient in self._training.items() if p in gradients}
        chosen = self.rule(self._by_operation(gradients), self._by_operation(training))
        self.freeze(chosen)
        return list(chosen)

    def freeze(self, operations: Iterable[str]) -> None:
        """Freeze operations for good."""
        self.frozen.update({operation: self.operations[operation] for operation in operations})

    def state_dict(self) -> dict[str, Any]:
        """What is frozen, the latest gradients of training, and the state of the rule."""
        return {"frozen": list(self.frozen), "training": self._training, "rule": self.rule.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.frozen.clear()
        self.freeze(state["frozen"])
        self._training = dict(state["training"])
        self.rule.load_state_dict(state["rule"])

    def _live(self) -> list[str]:
        return [operation for operation in self.operations if operation not in self.frozen]

    def _by_operation(self, gradients: Mapping[str, Tensor]) -> Gradients:
        return {operation: [gradients[p] for p in self.operations[operation]] for operation in self._live()}


def freezers(model: nn.Module, levels: Mapping[str, Level], owned: Mapping[str, Sequence[str]]) -> dict[str, Freezer]:
    """Return what freezes operations, by level.

    Args:
        model: the network.
        levels: by name, from the lowest to the highest.
        owned: the parameters of each level.

    Raises:
        ConfigError: a level has no operations to freeze, no level of arch parameters is above it, or a level above
            differentiates through its steps, which frozen operations do not take.
        UnknownNameError: no freezing has the name.
    """
    found: dict[str, Freezer] = {}
    names = list(levels)
    for number, (name, level) in enumerate(levels.items()):
        if level.freezing is None:
            continue
        where = f"level '{name}': freezing"
        operations = operations_of(model, owned[name]) if isinstance(model, Supernet) else {}
        if not operations:
            raise ConfigError(f"{where}: the level must own candidate operations of a supernet, got none")
        above = [each for each in names[number + 1 :] if any(p.startswith("arch.") for p in owned[each])]
        if not above:
            raise ConfigError(f"{where}: a level above must own the arch parameters, got none")
        for other in names[number + 1 :]:
            method = levels[other].hypergradient.get(name, {"name": "first_order"})["name"]
            if method != "first_order":
                raise ConfigError(
                    f"{where} needs hypergradient.{name} of level '{other}' to be first_order, got {method}: frozen"
                    " operations do not respond"
                )
        found[name] = Freezer(kind("freezing").create(level.freezing, where), operations, above[0])
    return found
