"""The searcher `weight_sharing_random`: draws genotypes, scored by one trained supernet."""

from __future__ import annotations

from nas.searchers.random_search import RandomSearch


class WeightSharingRandom(RandomSearch):
    """Random search whose scores come from one supernet, trained on uniformly drawn paths.

    References:
        Li and Talwalkar, "Random Search and Reproducibility for Neural Architecture Search", UAI 2019, section 3.2.
    """

    default_score = "one_shot"
