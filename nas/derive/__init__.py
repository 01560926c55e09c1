"""Derivation: from mixing weights to the choices of a genotype.

A policy decides which candidate each edge gets, and which in-edges a node keeps (how many is an argument of the cell).
One policy a file: `strongest` takes the largest mixing weights, `budgeted` the most probable genotype within a budget,
`best_of` the best of some samples, `threshold` what is above a threshold, and `perturbation` the candidates that a
trained supernet misses most. `random` draws candidates and in-edges.

`policy` states what a policy receives and returns, and finds the one that a configuration names. `candidates` lists the
candidates that a policy may choose and computes the strength of each in-edge. `limits` applies limits such as two skip
connections per cell, and `tradeoffs` finds the best genotype at each cost. `margins` and `stability` measure how clear
the choices are. `covering` makes a few genotypes that together contain every candidate.

Imports `nas.space` and below, and not `nas.relaxation`, `nas.planner`, `nas.cost` or `nas.hypergradient`. Start with
`policy`, then `strongest`.
"""
