"""Reading and writing genotypes in the formats of other projects.

`formats` finds importers and exporters by name; `python_text` reads Python literals without evaluating them. Imports
`nas.space` and below, and not `nas.compare`. Start with `formats`.
"""
