"""Searchers: other ways to search the decisions of a space than by gradient. Scores that need no training. One a file.

A searcher proposes a genotype (`ask`) and is told its score (`tell`). `random` draws, `local_search` climbs,
`evolution` mutates the best of a sample, `reinforce` trains a `policy`. `one_shot_evolution` and
`weight_sharing_random` use the scores of one trained supernet. `optuna_search` asks a sampler of Optuna; its `storage`
may be a `journal`. `searcher` states what a searcher is, `variation` draws,
mutates and crosses choices.

`score` states what a score is. `size` (`params`, `flops`), `grad_norm`, `synflow`, `naswot` and `jacob_cov` judge an
untrained network, `trained` a trained one.

Imports `nas.supernet` and below, and not `nas.run`. Start with `searcher`, then `random`.
"""
