"""The policy `strongest`: every decision takes its largest mixing weight. Mixing weights rank edges, not raw logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from nas.derive.candidates import allowed, existing, on_edges, positions, strengths
from nas.derive.limits import within
from nas.genotype.decision import Choice, Decision


def choose_strongest(
    decisions: Mapping[str, Decision],
    weights: Mapping[str, Tensor],
    costs: Mapping[str, Sequence[float]] | None = None,
    at_most: Mapping[str, int] | None = None,
) -> dict[str, Choice]:
    """Choose the strongest candidate of every decision.

    A node that keeps k of its in-edges keeps the k strongest. The strength of an in-edge is the largest mixing weight
    of its candidates besides `none`, and no kept in-edge derives `none`. Ties go to the cheaper candidate, then to the
    first.

    Args:
        decisions: the decisions of a space, by label.
        weights: the mixing weights `(candidates,)` of each decision that has arch parameters.
        costs: what each candidate of a decision costs, to settle ties.
        at_most: limits on candidates (see `nas.derive.limits.within`).

    Returns:
        The choice of each decision that exists, by label.

    Raises:
        DivergedError: a mixing weight is not finite.
        ConfigError: no genotype keeps the limits.

    References:
        Liu et al., DARTS, ICLR 2019, section 2.4.
    """
    choices: dict[str, Choice] = {}
    values, options, prices = strengths(decisions, weights), allowed(decisions), costs or {}
    forced = within(decisions, on_edges(decisions, weights, values), prices, options, at_most) if at_most else {}
    for label, decision in existing(decisions, choices):
        free = [0.0] * len(decision.candidates)
        price = free if decision.kind == "inputs" else prices.get(label, free)
        order = sorted(positions(decision, options[label]), key=lambda i: (-values[label][i], price[i], i))
        best = [decision.candidates[i] for i in order[: decision.keep]]
        choice = tuple(sorted(map(int, best))) if decision.kind == "inputs" else best[0]
        choices[label] = forced.get(label, choice)
    return choices
