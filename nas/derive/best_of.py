"""The policy `best_of`: the best of several genotypes that are drawn by the mixing weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from nas.derive.candidates import allowed, existing, positions, strengths
from nas.genotype.decision import Choice, Decision
from nas.registry import Count


def choose_best_of(
    decisions: Mapping[str, Decision],
    weights: Mapping[str, Tensor],
    evaluate_recalibrated: Callable[[Mapping[str, Choice]], float],
    generator: torch.Generator,
    *,
    samples: Count = 20,
) -> dict[str, Choice]:
    """Draw genotypes by the mixing weights, and take the one whose fixed supernet scores best.

    A candidate is drawn with a probability in proportion to its mixing weight, and a node draws its in-edges one after
    the other in proportion to their strengths. What was drawn before is not scored again.

    Args:
        decisions: the decisions of a space, by label.
        weights: the mixing weights `(candidates,)` of each decision that has arch parameters.
        evaluate_recalibrated: the validation score of the supernet fixed to given choices, with the statistics of its
            batch norms computed again; larger is better.
        generator: the source of random numbers, on the CPU.
        samples: how many genotypes to draw.

    Raises:
        DivergedError: a mixing weight is not finite.
    """
    values, options = strengths(decisions, weights), allowed(decisions)
    drawn: dict[tuple[tuple[str, Choice], ...], dict[str, Choice]] = {}
    for _ in range(samples):
        choices: dict[str, Choice] = {}
        for label, decision in existing(decisions, choices):
            own = positions(decision, options[label])
            # A weight of 0 is taken only if all others are; the smallest float keeps it possible.
            chances = torch.tensor([values[label][i] for i in own], dtype=torch.double).clamp_min(1e-30)
            order = [own[i] for i in torch.multinomial(chances, decision.keep, generator=generator).tolist()]
            if decision.kind == "inputs":
                choices[label] = tuple(sorted(int(decision.candidates[i]) for i in order))
            else:
                choices[label] = decision.candidates[order[0]]
        drawn.setdefault(tuple(sorted(choices.items())), choices)
    return max(drawn.values(), key=evaluate_recalibrated)
