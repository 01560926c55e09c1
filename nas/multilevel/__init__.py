"""Levels as data, and one step over any number of them.

`multilevel` takes a search step over all levels. In a step each level does three things: `loss_evaluation` evaluates
its loss without side effects, `responses` computes the gradient through the responses of the levels below, and
`stepper` takes the step of its optimizer. `levels` is the same for your own training loop.

`level` says what a level is. A configuration can name what is in `optimizers`, `exponentiated_gradient`, `schedules`,
`regularizers`, `logit_regularizers` and `operation_freezing`. `freezer` applies a freezing, and `weight_decay` computes
the pull of an optimizer's decay. `dependence` checks that every level affects a loss, `parts` lists what must fit
together, and `divergence` finds out why a run diverged.

Imports `nas.supernet`, `nas.hypergradient` and below. Start with `multilevel`.
"""
