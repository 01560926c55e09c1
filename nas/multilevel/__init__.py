"""Levels as data, and one step over any number of them.

`multilevel` takes a search step over all levels. In a step each level does three things: `loss_evaluation` evaluates
its loss without side effects, `responses` computes the gradient through the responses of the levels below, and
`stepper` takes the step of its optimizer. `levels` is the same for your own training loop.

`level` says what a level is; `optimizers`, `schedules` and `regularizers` are what a configuration can name in it.
`dependence` checks that every level affects a loss, `divergence` finds out why a run diverged.

Imports `nas.supernet`, `nas.hypergradient` and below. Start with `multilevel`.
"""
