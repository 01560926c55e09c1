"""How a search space is written: a function of `choose` that returns an ordinary module.

- `chooser`: the argument `choose` in its three forms (supernet, derived network, description)
- `mixed`: the modules that decisions become; `sums` adds their outputs, `inplace` checks that inputs stay unchanged,
  `partial` computes a part of the channels
- `wrapper`: what changes mixed operations
- `cell`: chains and graphs of micro decisions
- `operations`, `primitives`: candidate operations
- `definition`: search spaces and their descriptions

Imports `nas.genotype` and below. Start with `chooser`.
"""
