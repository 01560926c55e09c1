"""Searchers: other ways to search the decisions of a space than by gradient. Scores that need no training. One a file.

A searcher proposes a genotype (`ask`) and is told its score (`tell`). `random_search` draws, `local_search` climbs,
`evolution` mutates the best of a sample, `reinforce` trains a distribution (`categorical`). `one_shot_evolution` and
`weight_sharing_random` use the scores of one trained supernet. `optuna_search` asks a sampler of Optuna; its `storage`
may be a `journal`, and `leases` give each trial to one of many processes. `searcher` says what a searcher is;
`variation` draws, mutates and crosses choices.

`score` says what a score is. `size`, `gradient_norm`, `synaptic_flow`, `activation_kernel` and `jacobian_covariance`
judge an untrained network, `trained` a trained one.

Imports `nas.supernet` and below, and not `nas.run`. Start with `searcher`, then `random_search`.
"""
