"""A run: its task, configuration and folder, and the loop that a search and a retraining share.

- What runs: `task` (with `datasets`, `prediction` and `images`), `config`.
- How it runs: `loop` takes the steps; `searching` and `retraining` say what differs. `validation` and `collapse` are
  the observers of a search; `observer` is the base class of yours.
- What it keeps: `folder`, `checkpoint`, `modules`.
- What is checked before or beside a search: `inheritance`, `hypergradient_comparison`.

Imports `nas.multilevel` and below; knows no progress bar. Start with `loop`.
"""
