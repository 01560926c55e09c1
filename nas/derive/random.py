"""The policy `random`: every decision takes any of its candidates, all equally probable."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from nas.derive.candidates import allowed, existing, positions
from nas.genotype.decision import Choice, Decision


def choose_randomly(decisions: Mapping[str, Decision], generator: torch.Generator) -> dict[str, Choice]:
    """Draw choices uniformly, decision by decision.

    Decisions inside candidates that were not drawn are absent. A node that selects its in-edges derives no `none` on
    them, as under `strongest`.

    Args:
        decisions: the decisions of a space, by label.
        generator: the source of random numbers, on the CPU.
    """
    choices: dict[str, Choice] = {}
    options = allowed(decisions)
    for label, decision in existing(decisions, choices):
        own = positions(decision, options[label])
        order = [own[i] for i in torch.randperm(len(own), generator=generator).tolist()]
        if decision.kind == "inputs":
            choices[label] = tuple(sorted(int(decision.candidates[i]) for i in order[: decision.keep]))
        else:
            choices[label] = decision.candidates[order[0]]
    return choices
