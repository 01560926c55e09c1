"""Latencies of candidates as data: a table by label and candidate, in milliseconds, measured on any machine.

A search reads the table from its configuration and measures nothing, so equal configurations give equal searches.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from nas.cost.meter import Call, own_shares
from nas.cost.space_cost import Cost, Place
from nas.errors import ConfigError, UnknownNameError
from nas.genotype.decision import Decision
from nas.space.mixed import MixedOperation, candidates_of

Table = Mapping[str, Mapping[str, float]]
"""Milliseconds by label and candidate: the own share of a candidate (see `nas.cost.meter`), summed over its places."""


def tabulated(decisions: Mapping[str, Decision], table: Table) -> Cost:
    """Return the cost of the candidates of a search space as a table states it; the rest of the space costs 0.

    Args:
        decisions: the decisions of the space, by label.
        table: the latencies; depths and widths may be absent.

    Raises:
        UnknownNameError: the space has no such label or candidate.
        ConfigError: the table lacks a candidate operation, or a candidate of a label that it has.
    """
    for label, row in table.items():
        if label not in decisions:
            raise UnknownNameError("label in the table of latencies", label, decisions)
        for candidate in row:
            if candidate not in map(str, decisions[label].candidates):
                raise UnknownNameError(
                    f"candidate of '{label}' in the table of latencies", candidate, _names(decisions[label])
                )
    terms: dict[tuple[Place, str], tuple[float, ...]] = {}
    for label, decision in decisions.items():
        row = table.get(label, {})
        lacking = [name for name in _names(decision) if name not in row]
        if lacking and (row or decision.kind == "operation"):
            raise ConfigError(
                f"the table of latencies must have every candidate of '{label}', got none for {', '.join(lacking)}."
                " `nas latency` prints a whole table"
            )
        if row:
            costs = tuple(float(row[name]) for name in _names(decision))
            terms.update({(place, label): costs for place in _places(decision, decisions)})
    return Cost(decisions, 0.0, terms)


def measure_latency(network: nn.Module, inputs: Sequence[Any], repeats: int = 20) -> dict[str, dict[str, float]]:
    """Measure the table of a supernet on its device, in eval mode without gradients.

    Args:
        network: the supernet.
        inputs: its inputs, on its device.
        repeats: the number of forward passes, of which the table has the medians; one more warms up.

    Raises:
        ConfigError: the network cannot run on the inputs.
    """
    mixed = [module for module in network.modules() if isinstance(module, MixedOperation)]
    watched = [*mixed, *(candidate for module in mixed for candidate in candidates_of(module).values())]

    def key(caller: Call[tuple[str, str] | None], module: nn.Module) -> tuple[str, str] | None:
        name = caller.name_of(module)
        return (caller.module.label, name) if isinstance(caller.module, MixedOperation) and name else caller.key

    passes = [own_shares(network, inputs, watched, key, None) for _ in range(repeats + 1)]
    table: dict[str, dict[str, float]] = {}
    for label, candidate in filter(None, passes[0]):
        median = statistics.median(shares[label, candidate] for shares in passes[1:])  # the first pass warms up
        table.setdefault(label, {})[candidate] = round(1000 * median, 4)
    return table


def _names(decision: Decision) -> list[str]:
    return [str(candidate) for candidate in decision.candidates]


def _places(decision: Decision, decisions: Mapping[str, Decision]) -> list[Place]:
    if not decision.conditions:
        return [()]
    return [
        (*place, (label, inside))
        for label, inside in decision.conditions
        for place in _places(decisions[label], decisions)
    ]
