"""Ranks: several processes that compute one run together, started by `torchrun`.

Every rank runs the same program and holds the whole network. Each computes the losses of its share of a batch, and
`reduction` sums them so that each derivative of any order is that of the whole batch. In one process everything here is
empty of effect.

`environment` says what `torchrun` started, without importing torch; `ranks` is the group of processes and what they
tell one another; `reduction` has the two operators between ranks; `share` says which samples of a batch a rank has;
`whole_batch` lets batch norm and dropout see the samples of all ranks; `heartbeat` notices a rank that is lost.

Imports `nas.errors`, `nas.files` and `nas.registry`. Start with `reduction`.
"""
