"""Settings found by Optuna: trials are runs, the score is taken on validation data.

`tuning` runs a study, `study` shares it among processes, `trial` is one of its runs. `distributions` reads what a
setting may be.

Imports `nas.run` and below, and not `nas.export`, `nas.testing` or `nas.benchmark`. Start with `tuning`.
"""
