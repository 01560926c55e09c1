"""Hypergradients: how a lower level responds when a level above it moves. One method a file.

The gradient of an upper loss is the plain derivative of `upper(a, response(a))`: `a` are the upper parameters, and
`response` returns the lower parameters *as a differentiable function of a*. A method is such a response. Levels nest,
because the response of a middle level is computed at the response of the level below it.

`response` says what a method is, `methods` creates one from a configuration, `virtual_step` is the differentiable step
of an optimizer. Every other file is one method, or what several methods share (`attach`, `curvature`, `damping`,
`dense_hessian`, `eigenvalue`, `generalized_gauss_newton`, `vectors`). To add a method, write a file here and name its
class under `nas.hypergradients` in `pyproject.toml`, or register it from anywhere by
`@nas.register("hypergradient", NAME)`.

Imports `nas.kernels` and below, and not
`nas.relaxation`, `nas.planner`, `nas.derive` or `nas.cost`. Start with `response`, then `unrolled`.
"""
