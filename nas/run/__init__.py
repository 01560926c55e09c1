"""A run: its task, configuration and folder, and the loop that a search and a retraining share.

- What runs: `task` (with `datasets`, `prediction`, `scoring` and `images`), `config` (with `config_files`).
- How it runs: `loop` takes the steps; `searching` and `retraining` say what differs, `weight_average` averages weights.
- What watches a search: `observer` is the base class; `validation`, `collapse`, `logit_gradients` and `response_shares`
  are the built-in ones. `stopping` says what a stopping rule is, `darts_plus` and `robust_darts` are rules.
- What derives from a trained supernet: `projection`, `recalibration`.
- Search by proposals: `proposals` asks a searcher, `judge` scores genotypes, `held_out` retrains on one split and
  scores on another.
- What it keeps: `folder`, `checkpoint`, `modules`; `examination` says what is wrong with a folder.
- What is shipped: `models`, each with a `card`.
- What is checked before or beside a search: `inheritance`, `hypergradient_comparison`.

Imports `nas.multilevel` and below; knows no progress bar. Start with `loop`.
"""
