"""What a notebook calls: search, retrain, load, evaluate, predict.

`running` starts a search or a retraining in a run folder and shows its progress. `results` reads what a run folder
holds. `scored` evaluates files, `benchmarking` compares searchers on a table, and `correlating` compares scores with a
table. `targets` finds the genotype, run or configuration of a name or path. `interrupts` delays a signal until a step
has ended.

May import all of `nas` but `nas.cli`, whose commands are thin calls of this package. Start with `running`.
"""
