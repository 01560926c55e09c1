"""TMICS, video deraining, as a plugin: search space, data, metrics, task and prediction.

- `space`: the search space; `network`, `alignment`, `consistency`, `frequency`, `blocks`, `operations`, `compact`,
  `rain_layer`, `averaging` hold its modules, `flow` optical flow
- `task`: losses, data and scores of a run; `losses`, `metrics`, `data` hold their parts
- `predict`: derains video files, faster by `inference`; `scores` scores the results; `models` and `weights` are shipped
- `published`: reads and writes the authors' genotypes

Imports public modules of `nas`. Start with `space`, then `network`.
"""
