"""Relaxations: from arch parameters (logits) to mixing weights, one a file.

`relaxation` is the interface of all relaxations. `sampling` is the interface of those that compute a single candidate
of each decision, such as `gumbel`. To add a relaxation, write a file here and name its class under `nas.relaxations` in
`pyproject.toml`, or register it from anywhere by `@nas.register("relaxation", NAME)`.

Imports `nas.space` and below, and not `nas.planner`, `nas.derive`, `nas.cost` or
`nas.hypergradient`. Start with `softmax`.
"""
