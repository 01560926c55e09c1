"""Latencies of candidates as data: a table by label and candidate, in milliseconds, measured here or somewhere else.

A search takes them from its configuration and never measures by itself: equal configurations give equal searches.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from nas.cost import Cost, Place
from nas.errors import ConfigError, UnknownNameError
from nas.genotype import Decision
from nas.mixed import MixedOperation

Table = Mapping[str, Mapping[str, float]]
"""Milliseconds by label and candidate: those of a candidate at all its places, less the decisions inside it."""


def tabulated(decisions: Mapping[str, Decision], table: Table) -> Cost:
    """The cost of the candidates of a search space as a table gives it; what lies outside every decision costs 0.

    Raises `UnknownNameError` for a label or candidate that the space lacks, and `ConfigError` for one that the table
    lacks, of the decisions among operations; depths and widths may be left out.
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
                f"the table of latencies has nothing for '{label}': {', '.join(lacking)};"
                " `nas latency` prints a whole one"
            )
        if row:
            costs = tuple(float(row[name]) for name in _names(decision))
            terms.update({(place, label): costs for place in _places(decision, decisions)})
    return Cost(decisions, 0.0, terms)


def measure_latency(network: nn.Module, inputs: Sequence[Any], repeats: int = 20) -> dict[str, dict[str, float]]:
    """The table of a supernet on its device: medians over forward passes in eval mode, without gradients."""
    passes: list[dict[tuple[str, str], float]] = []
    spent: dict[tuple[str, str], float] = defaultdict(float)
    running: list[float] = []  # what candidates inside the one that runs have taken

    def now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    def enter(*_: object) -> None:
        running.extend((0.0, now()))

    def leave(key: tuple[str, str]) -> None:
        took = now() - running.pop()
        spent[key] += took - running.pop()
        if running:
            running[-2] += took

    hooks = []
    for module in network.modules():
        if isinstance(module, MixedOperation):
            for candidate, child in module.named_children():
                key = module.label, candidate
                hooks += [
                    child.register_forward_pre_hook(enter),
                    child.register_forward_hook(lambda *_, key=key: leave(key)),
                ]
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            for _ in range(repeats + 1):
                spent.clear()
                network(*inputs)
                passes.append(dict(spent))
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    table: dict[str, dict[str, float]] = {}
    for label, candidate in passes[0]:
        seconds = statistics.median(each[label, candidate] for each in passes[1:])  # the first pass warms up
        table.setdefault(label, {})[candidate] = round(1000 * seconds, 4)
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
