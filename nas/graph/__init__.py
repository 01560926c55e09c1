"""Genotypes and search spaces as graphs of networkx.

`network_graph` builds the graph. It calls modules with values that record where data comes from (`trace`), collects
the parts of each module (`scope`), and wires them (`dataflow`). `exchange` writes a graph for other programs.

The only package that imports networkx. Imports `nas.space` and below. Start with `network_graph`.
"""
