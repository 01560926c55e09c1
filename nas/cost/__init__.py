"""What networks cost: parameters, FLOPs, latency, memory; expected cost of a supernet.

`meter` runs a network and measures the FLOPs, time or memory of each module; it defines a module's own share.
`simulated_step` simulates the memory of a call. `network_cost` computes the cost of one network and of its modules.
`space_cost` computes the cost of every candidate of a search space, `interactions` the cost of layers that depend on
two widths. `latency` reads and measures tables. `system_memory` says what memory the machine or container has.
Imports `nas.space` and below, and not `nas.relaxation`, `nas.planner`, `nas.derive` or `nas.hypergradient`. Start with
`meter`.
"""
