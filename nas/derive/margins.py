"""How far each choice leads its alternatives."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from nas.derive.candidates import allowed, positions, strengths
from nas.genotype.decision import Choice, Decision


def margins_of(
    decisions: Mapping[str, Decision], weights: Mapping[str, Tensor], choices: Mapping[str, Choice]
) -> dict[str, float]:
    """The margin of each choice: the strength of the weakest candidate it took minus that of the strongest it left.

    A margin is 0 if a stronger candidate was left, as limits can force. A choice without an alternative, such as that
    of a node that keeps all of its in-edges, has no margin.

    Args:
        decisions: the decisions of a space, by label.
        weights: the mixing weights `(candidates,)` of each decision that has arch parameters.
        choices: the choices of a genotype, by label.

    Returns:
        The margins by label, in [0, 1].

    Raises:
        DivergedError: a mixing weight is not finite.
    """
    values, options = strengths(decisions, weights), allowed(decisions)
    found = {}
    for label, choice in choices.items():
        taken = {decisions[label].candidates.index(c) for c in (choice if isinstance(choice, tuple) else (choice,))}
        left = [values[label][i] for i in positions(decisions[label], options[label]) if i not in taken]
        if left:
            found[label] = max(min(values[label][i] for i in taken) - max(left), 0.0)
    return found
