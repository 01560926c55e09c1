"""A few genotypes that together take every candidate of a space, for checks that must see each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from nas.derive.candidates import allowed, existing
from nas.genotype.decision import Choice, Condition, Decision


def choose_every_candidate(decisions: Mapping[str, Decision]) -> Iterator[dict[str, Choice]]:
    """Yield choices that together take every candidate operation and every in-edge that can be taken.

    Widths are the smallest, depths the largest.

    Args:
        decisions: the decisions of a space, by label.
    """
    options: dict[str, list[str | int]] = {}
    for label, indices in allowed(decisions).items():
        decision = decisions[label]
        extreme = {"width": min, "depth": max}.get(decision.kind)
        candidates = [decision.candidates[i] for i in indices] or list(decision.candidates)
        options[label] = candidates if extreme is None else [extreme(map(int, candidates))]
    ways = {label: _way(decisions, options, label) for label in decisions}
    waiting = {
        (label, candidate): None for label, way in ways.items() if way is not None for candidate in options[label]
    }
    while waiting:
        first = next(iter(waiting))
        wanted = {first, *(ways[first[0]] or ())}
        inside = Counter(condition for label, _ in waiting for condition in ways[label] or ())
        choices: dict[str, Choice] = {}
        for label, decision in existing(decisions, choices):
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
    """What must be chosen for a decision to exist, the first of several ways; None if it cannot exist."""
    for condition in decisions[label].conditions:
        parent, candidate = condition
        outer = _way(decisions, options, parent) if candidate in options[parent] else None
        if outer is not None:
            return [condition, *outer]
    return None if decisions[label].conditions else []
