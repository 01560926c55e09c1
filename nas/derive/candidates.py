"""What may be derived at all: which decisions exist, which candidates they may choose, how strong each edge is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from nas.errors import DivergedError
from nas.genotype.decision import NONE, Choice, Decision


def existing(decisions: Mapping[str, Decision], choices: Mapping[str, Choice]) -> Iterator[tuple[str, Decision]]:
    """Yield each decision that exists given `choices`, which the caller may complete on the way.

    The order can differ from that of `decisions`: a label shared by two candidates can precede the second one's
    decision.
    """
    waiting = dict(decisions)
    while label := next((label for label, decision in waiting.items() if decision.active(choices)), None):
        yield label, waiting.pop(label)


def allowed(decisions: Mapping[str, Decision]) -> dict[str, list[int]]:
    """The candidates, by position, that each decision may choose.

    A node that selects its in-edges (`pruned`) derives no `none` on them.
    """
    sources = edges(decisions)
    pruned = {edge for label, decision in decisions.items() if decision.pruned for edge in sources[label].values()}
    return {
        label: [i for i, name in enumerate(decision.candidates) if name != NONE or label not in pruned]
        for label, decision in decisions.items()
    }


def edges(decisions: Mapping[str, Decision]) -> dict[str, dict[int, str]]:
    """For each `inputs` decision, the label of the operation decision on the edge from each source."""
    found: dict[str, dict[int, str]] = {d.label: {} for d in decisions.values() if d.kind == "inputs"}
    for decision in decisions.values():
        for parent, source in decision.conditions:
            if parent in found and decision.kind == "operation":
                found[parent].setdefault(int(source), decision.label)
    return found


def strengths(decisions: Mapping[str, Decision], weights: Mapping[str, Tensor]) -> dict[str, list[float]]:
    """How strong each candidate of each decision is.

    The strength of an operation, width or depth is its mixing weight. The strength of an in-edge is the largest mixing
    weight that it may choose, and 1 if nothing is decided on it; times the factor of the in-edge, if it has one.

    Args:
        decisions: the decisions of a space, by label.
        weights: the mixing weights `(candidates,)` of each decision that has arch parameters, and the factors of
            in-edges `(sources,)` (Xu et al., PC-DARTS, ICLR 2020).

    Raises:
        DivergedError: a mixing weight is not finite.
    """
    found: dict[str, list[float]] = {label: weight.double().tolist() for label, weight in weights.items()}
    for label, values in found.items():
        if not all(map(math.isfinite, values)):
            raise DivergedError(f"mixing weights of '{label}' must be finite to derive from them, got {values}")
    options = allowed(decisions)

    def strength(edge: str | None) -> float:
        return 1.0 if edge is None else max((found[edge][i] for i in options[edge]), default=0.0)

    for label, by_source in edges(decisions).items():
        own = [strength(by_source.get(int(source))) for source in decisions[label].candidates]
        found[label] = [factor * each for factor, each in zip(found.get(label, [1.0] * len(own)), own, strict=True)]
    return found


def on_edges(
    decisions: Mapping[str, Decision], weights: Mapping[str, Tensor], values: Mapping[str, Sequence[float]]
) -> dict[str, Sequence[float]]:
    """The strengths `values`, with those of operations on in-edges times the factors of these, if they have some.

    The largest one of an in-edge that may be chosen is then the strength of the in-edge.
    """
    found = dict(values)
    weighed = ((label, by_source) for label, by_source in edges(decisions).items() if label in weights)
    for label, by_source in weighed:
        for place, factor in enumerate(weights[label].double().tolist()):
            if (edge := by_source.get(int(decisions[label].candidates[place]))) is not None:
                found[edge] = [factor * each for each in values[edge]]
    return found


def positions(decision: Decision, options: Sequence[int]) -> Sequence[int]:
    """The candidates that a decision may choose, by position: all of them if none is allowed."""
    return options or range(len(decision.candidates))
