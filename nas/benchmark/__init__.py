"""Benchmarks on tables: the results of every network of a search space, so that a search takes milliseconds.

`table` says what a table is, `table_file` reads one from a file, and `enumeration` numbers the genotypes of a space.
`simulation` searches on a table with many seeds. `scores` computes scores of untrained networks, on a batch of
`batches`. The statistics are in `rankings` and `intervals`.

Imports `nas.run` and below, and not `nas.export`, `nas.tune` or `nas.testing`. Start with `table`.
"""
