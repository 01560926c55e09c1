"""Write a network as one Python file without this package, and its weights.

`module` writes the file. `carrier` collects the definitions that the file needs; `origin` finds where a name comes
from, `references` which names a piece of source uses, and `definitions` writes them. `construction` finds the calls
that build the network, with `torch_layers`, `values`, `initializer` and `expression`. `plain_decisions` leaves out the
checks of decided modules. Start with `module`.
"""
