"""Strengths of in-edges: the largest mixing weight that may be chosen, times a factor."""

from __future__ import annotations

import torch

from nas.derive.candidates import on_edges, strengths
from nas.genotype.decision import NONE, Decision

DECISIONS = {
    decision.label: decision
    for decision in (
        Decision("n", "inputs", (0, 1), 1, True),
        Decision("e", "operation", ("x", "y", NONE), conditions=(("n", 0),)),
    )
}


def test_an_edge_without_a_decision_has_the_strength_1() -> None:
    weights = {"e": torch.tensor([0.25, 0.125, 0.625])}
    assert strengths(DECISIONS, weights) == {"e": [0.25, 0.125, 0.625], "n": [0.25, 1.0]}
    weights["n"] = torch.tensor([0.75, 0.5])
    assert strengths(DECISIONS, weights)["n"] == [0.75 * 0.25, 0.5]
    values = on_edges(DECISIONS, weights, strengths(DECISIONS, weights))
    assert values == {"e": [0.75 * each for each in (0.25, 0.125, 0.625)], "n": [0.75 * 0.25, 0.5]}
