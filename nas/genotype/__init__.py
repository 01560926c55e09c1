"""What a search chose: decisions, genotypes, and the genotype file.

`decision` says what can be chosen; `file` holds `Genotype`, its strict YAML format and its JSON Schema. Imports
`nas.errors`, `nas.files` and `nas.registry` alone (`Genotype` draws itself through an import inside the method).
Start with `decision`.
"""
