"""Uniform single paths, whose logits are not learned (Guo et al., SPOS, ECCV 2020; Chu et al., FairNAS, ICCV 2021)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nas.declarations import ONE_PATH, SAME_CANDIDATES, SHARES, declares
from nas.errors import ConfigError
from nas.genotype.decision import Decision
from nas.relaxation.sampling import Draw, one_hot
from nas.space.mixed import Sampled


@declares(writes="mixing weights", gives=(SHARES, ONE_PATH, SAME_CANDIDATES))
class UniformPath(nn.Module):
    """Computes one candidate of each decision, drawn uniformly: it trains operation weights, and no logits.

    No level may own the arch parameters. A genotype is found afterwards, by scores of paths of the trained supernet.
    Mixing weights are uniform. In eval mode the candidate with the largest logit is taken, the first one if all are
    equal.

    Args:
        fair: every step computes each candidate once, in a random order by decision, and descends the sum of the
            losses of these paths: each candidate gets the same number of updates (FairNAS, alg. 1). All decisions must
            have the same number of candidates, none inside a candidate of another.

    Shape:
        - Input: logits `(candidates,)`.
        - Output: mixing weights `(candidates,)`.

    References:
        Guo et al., Single Path One-Shot Neural Architecture Search with Uniform Sampling, ECCV 2020.
        Chu et al., FairNAS: Rethinking Evaluation Fairness of Weight Sharing NAS, ICCV 2021, alg. 1.
    """

    def __init__(self, fair: bool = False) -> None:
        super().__init__()
        self.fair = fair

    def forward(self, logits: Tensor) -> Tensor:
        return torch.full_like(logits, 1 / len(logits), requires_grad=False)

    def draw(self, logits: Tensor, draw: Draw) -> Sampled:
        if draw.random:
            numbers = draw.uniform()
            order = sorted(range(len(numbers)), key=numbers.__getitem__)
            choice = order[draw.turn]
        else:
            choice = draw.ranked(draw.gumbel())[0]
        return Sampled(choice, one_hot(choice, logits))

    def passes(self, decisions: Mapping[str, Decision]) -> int:
        if not self.fair:
            return 1
        mixed = {label: decision for label, decision in decisions.items() if decision.kind != "inputs"}
        for label, decision in mixed.items():
            if any(decisions[parent].kind != "inputs" for parent, _ in decision.conditions):
                raise ConfigError(
                    f"relaxation 'uniform_path': with 'fair' no decision may lie inside a candidate of another, got"
                    f" '{label}'. Use fair: false"
                )
        counts = {len(decision.candidates): label for label, decision in mixed.items()}
        if len(counts) > 1:
            found = " and ".join(f"{count} of '{label}'" for count, label in counts.items())
            raise ConfigError(
                "relaxation 'uniform_path': with 'fair' all decisions must have the same number of candidates, got"
                f" {found}. Use fair: false"
            )
        return next(iter(counts), 1)
