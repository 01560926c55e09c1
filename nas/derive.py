"""Derivation: from mixing weights to the choices of a genotype. Edges are ranked by mixing weight, not by raw logit."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from nas.errors import DivergedError
from nas.genotype import NONE, Choice, Condition, Decision
from nas.limits import within


def choose_strongest(
    decisions: Mapping[str, Decision],
    weights: Mapping[str, Tensor],
    costs: Mapping[str, Sequence[float]] | None = None,
    at_most: Mapping[str, int] | None = None,
) -> tuple[dict[str, Choice], dict[str, float]]:
    """The strongest candidate of every decision, and its margin: its mixing weight less the runner-up's.

    What has no alternative, such as a node that keeps all of its in-edges, was not decided and has no margin.

    A node that keeps k of its in-edges keeps those whose strongest candidate besides `none` has the largest mixing
    weight (DARTS, sec. 2.4), and never derives `none` on them. Ties go to the cheaper candidate, then to the first.
    Raises `DivergedError` for weights that are not finite.

    Args:
        decisions: the decisions of a space, by label.
        weights: the mixing weights `(candidates,)` of each decision that has arch parameters.
        costs: what each candidate of a decision costs, to settle ties.
        at_most: limits on candidates (see `nas.limits.within`). A choice that they force has a margin of 0.
    """
    choices: dict[str, Choice] = {}
    margins: dict[str, float] = {}
    values: dict[str, list[float]] = {label: weight.double().tolist() for label, weight in weights.items()}
    for label, numbers in values.items():
        if not all(map(math.isfinite, numbers)):
            raise DivergedError(f"mixing weights of '{label}' must be finite to derive from them, got {numbers}")
    edges = _edges(decisions)
    allowed = _allowed(decisions)
    fixed = within(decisions, values, costs or {}, allowed, at_most) if at_most else {}

    def strength(edge: str | None) -> float:
        """The largest mixing weight on an edge; one without a decision is as strong as can be."""
        return 1.0 if edge is None else max((values[edge][i] for i in allowed[edge]), default=0.0)

    for label, decision in _existing(decisions, choices):
        if decision.kind == "inputs":
            strengths = [strength(edges[label].get(int(source))) for source in decision.candidates]
            kept = fixed.get(label, ())
            assert isinstance(kept, tuple)
            order = sorted(range(len(strengths)), key=lambda i: (decision.candidates[i] not in kept, -strengths[i], i))
            choices[label] = tuple(sorted(int(decision.candidates[i]) for i in order[: decision.keep]))
            ranked = [strengths[i] for i in order]
        else:
            price = (costs or {}).get(label, [0.0] * len(values[label]))
            options = allowed[label] or range(len(price))
            forced = fixed.get(label)
            order = sorted(options, key=lambda i: (decision.candidates[i] != forced, -values[label][i], price[i], i))
            choices[label] = decision.candidates[order[0]]
            ranked = [values[label][i] for i in order]
        if len(ranked) > decision.keep:  # by how much the last one kept leads the first one dropped
            margins[label] = max(ranked[decision.keep - 1] - ranked[decision.keep], 0.0)
    return choices, margins


def choose_randomly(decisions: Mapping[str, Decision], generator: torch.Generator) -> dict[str, Choice]:
    """Choices drawn uniformly, decision by decision; those inside candidates that were not drawn are absent.

    Like the strongest ones they never take `none` on an in-edge that a node keeps of several.
    """
    choices: dict[str, Choice] = {}
    allowed = _allowed(decisions)
    for label, decision in _existing(decisions, choices):
        options = allowed[label] or range(len(decision.candidates))
        order = [options[i] for i in torch.randperm(len(options), generator=generator).tolist()]
        if decision.kind == "inputs":
            choices[label] = tuple(sorted(int(decision.candidates[i]) for i in order[: decision.keep]))
        else:
            choices[label] = decision.candidates[order[0]]
    return choices


def choose_each(decisions: Mapping[str, Decision]) -> Iterator[dict[str, Choice]]:
    """A few choices that together take every candidate of an operation and every in-edge that can be taken.

    Widths are the smallest, depths the largest.
    """
    options: dict[str, list[str | int]] = {}
    for label, allowed in _allowed(decisions).items():
        decision = decisions[label]
        extreme = {"width": min, "depth": max}.get(decision.kind)
        numbers = [decision.candidates[i] for i in allowed] or list(decision.candidates)
        options[label] = numbers if extreme is None else [extreme(map(int, numbers))]
    ways = {label: _way(decisions, options, label) for label in decisions}
    waiting = {
        (label, candidate): None for label, way in ways.items() if way is not None for candidate in options[label]
    }
    while waiting:
        first = next(iter(waiting))
        wanted = {first, *(ways[first[0]] or ())}
        inside = Counter(condition for label, _ in waiting for condition in ways[label] or ())
        choices: dict[str, Choice] = {}
        for label, decision in _existing(decisions, choices):
            pairs = [(label, candidate) for candidate in options[label]]
            pairs.sort(key=lambda pair: (pair not in wanted, pair not in waiting, -inside[pair]))
            kept = pairs[: decision.keep]
            choices[label] = tuple(sorted(int(c) for _, c in kept)) if decision.kind == "inputs" else kept[0][1]
            for pair in kept:
                waiting.pop(pair, None)
        yield choices


def _way(
    decisions: Mapping[str, Decision], options: Mapping[str, Sequence[str | int]], label: str
) -> list[Condition] | None:
    """What must be chosen for a decision to exist, the first of several ways; None where it cannot."""
    for condition in decisions[label].conditions:
        parent, candidate = condition
        outer = _way(decisions, options, parent) if candidate in options[parent] else None
        if outer is not None:
            return [condition, *outer]
    return None if decisions[label].conditions else []


def _existing(decisions: Mapping[str, Decision], choices: Mapping[str, Choice]) -> Iterator[tuple[str, Decision]]:
    """The decisions that exist given `choices`, which the caller completes on the way.

    Not simply in the order of `decisions`: a label shared by two candidates can stand before the second one's decision.
    """
    waiting = dict(decisions)
    while label := next((label for label, decision in waiting.items() if decision.active(choices)), None):
        yield label, waiting.pop(label)


def _allowed(decisions: Mapping[str, Decision]) -> dict[str, list[int]]:
    """The candidates of each decision, by position, that may be chosen: `none` not on an edge that was selected."""
    edges = _edges(decisions)
    pruned = {edge for label, decision in decisions.items() if decision.pruned for edge in edges[label].values()}
    return {
        label: [i for i, name in enumerate(decision.candidates) if name != NONE or label not in pruned]
        for label, decision in decisions.items()
    }


def _edges(decisions: Mapping[str, Decision]) -> dict[str, dict[int, str]]:
    """For each `inputs` decision the label of the operation decision on the edge from each source."""
    found: dict[str, dict[int, str]] = {d.label: {} for d in decisions.values() if d.kind == "inputs"}
    for decision in decisions.values():
        for parent, source in decision.conditions:
            if parent in found and decision.kind == "operation":
                found[parent].setdefault(int(source), decision.label)
    return found
