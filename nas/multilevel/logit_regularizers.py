"""Regularizers that belong to one relaxation: terms on the logits, in the form of the authors' code."""

from __future__ import annotations

import torch
from torch import Tensor

from nas.declarations import DIRICHLET, SEPARATE, declares
from nas.relaxation.dirichlet import log_concentration
from nas.supernet import Supernet


@declares(reads="logits", needs=SEPARATE)
def zero_one(supernet: Supernet) -> Tensor:
    """Return `-mean (sigmoid(a) - 1/2)^2` over all logits, in [-1/4, 0]: to minimize it drives weights to 0 or 1.

    FairDARTS gives it the weight 10.

    References:
        Chu et al., Fair DARTS, ECCV 2020; xiaomi-automl/FairDARTS, `fairdarts/separate_loss.py`.
    """
    return -(_every(supernet).sigmoid() - 0.5).square().mean()


@declares(reads="logits", needs=DIRICHLET)
def dirichlet_l2(supernet: Supernet) -> Tensor:
    """Return half the sum of squares of all logits: to minimize it keeps the concentrations near 1.

    With the weight 1e-3 it equals the default of DrNAS, which is torch's `weight_decay: 1e-3` of the arch optimizer.

    References:
        Chen et al., DrNAS, ICLR 2021; xiangning-chen/DrNAS, `architect.py`, `reg_type` l2.
    """
    return _every(supernet).square().sum() / 2


@declares(reads="logits", needs=DIRICHLET)
def dirichlet_kl(supernet: Supernet) -> Tensor:
    """Return the sum over decisions of `KL(Dirichlet(elu(a) + 1), Dirichlet(1))`, at least 0.

    To minimize it keeps the mixing weights near a uniform distribution over all mixtures.

    References:
        Chen et al., DrNAS, ICLR 2021; xiangning-chen/DrNAS, `DARTS-space/model_search.py`, `_get_kl_reg`.
    """
    terms = [_divergence(log_concentration(logits).exp()) for logits in supernet.candidate_logits().values()]
    return torch.stack(terms).sum() if terms else torch.zeros(())


def _divergence(c: Tensor) -> Tensor:
    total = c.sum()
    normalizers = total.lgamma() - c.lgamma().sum() - torch.lgamma(total.new_tensor(float(len(c))))
    return normalizers + ((c - 1) * (c.digamma() - total.digamma())).sum()


def _every(supernet: Supernet) -> Tensor:
    logits = list(supernet.candidate_logits().values())
    return torch.cat(logits) if logits else torch.zeros(1)
