"""The scores `retraining` and `one_shot`: those of a trained network, and of a supernet fixed to a genotype."""

from __future__ import annotations

from collections.abc import Callable

from nas.registry import Count


def retraining(retrained: Callable[[str, str], float], *, train: str = "train", split: str = "val") -> float:
    """Train the network by the section `retrain` of the configuration, and score it on other data.

    Args:
        retrained: a resource.
        train: the split for training in all stages.
        split: the split for the score.
    """
    return retrained(train, split)


def one_shot(
    shared: Callable[[str, str, int], float], *, supernet: str = "", split: str = "val", batches: Count = 4
) -> float:
    """Score a trained supernet fixed to the genotype, with the statistics of its norms computed again.

    Args:
        shared: a resource.
        supernet: the folder of a search; by default a supernet is trained first, by the section `search` of the
            configuration without its levels of logits, on uniformly drawn paths.
        split: the split for the score.
        batches: the number of its batches, and of training batches for the norms.

    References:
        Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020, section 3.4.
    """
    return shared(supernet, split, batches)
