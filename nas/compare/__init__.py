"""Comparing genotypes: problems of a file, equality up to isomorphism, differences.

`problems` lists everything wrong with a genotype file, `canonical_form` hashes what its cells compute, `changes`
names the fields in which two genotypes differ. Imports `nas.space` and below, and not `nas.importing`. Start with
`canonical_form`.
"""
