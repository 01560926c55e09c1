"""How the cells of a supernet are evaluated: plainly, or shared and batched with the same results.

`planned_cell` evaluates a cell by plan, `out_edges` the edges that leave one node, and `batched_layers` candidates of
equal structure at once. `known_layers` recognizes what candidates consist of, `assumptions` notices changes of modules,
and `activation_checkpointing` recomputes intermediate results to save memory. `running_sum` adds up outputs.

Imports `nas.space`, `nas.kernels` and below, and not `nas.relaxation`, `nas.derive`, `nas.cost` or
`nas.hypergradient`. Start with `planned_cell`.
"""
