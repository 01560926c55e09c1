"""One candidate of each decision, drawn anew at each step of a search."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from nas.mixed import Sampled


@runtime_checkable
class Sampling(Protocol):
    """A relaxation that computes one candidate of each decision, and gives its weight a gradient."""

    def relaxed(self, logits: Tensor, noise: Tensor, progress: float) -> Tensor:
        """The mixing weights `(candidates,)` whose largest is taken and gets the gradient; smooth in the logits."""


def sample(
    sampling: Sampling, arch: Mapping[str, Tensor], noise: Mapping[str, Sequence[float]] | None, progress: float
) -> dict[str, Sampled]:
    """A candidate for each label: the largest of logits and noise, its weight 1 with the gradient of the relaxation.

    Without noise the choice is that of the largest logit. What was chosen is read back from the device once.
    """
    if not arch:
        return {}
    flat = torch.cat([logits.detach() for logits in arch.values()])
    if noise is None:
        added = torch.zeros_like(flat)
    else:
        added = torch.tensor([g for label in arch for g in noise[label]], dtype=flat.dtype).to(flat.device)
    scores = (flat + added).tolist()
    found, start = {}, 0
    for label, logits in arch.items():
        end = start + len(logits)
        choice = max(range(len(logits)), key=scores[start:end].__getitem__)
        soft = sampling.relaxed(logits, added[start:end], progress)
        hard = torch.zeros_like(soft)
        hard[choice] = 1.0
        found[label] = Sampled(choice, hard + (soft - soft.detach()))
        start = end
    return found


def gumbel_noise(seed: int, label: str, candidates: Sequence[str | int], step: int) -> list[float]:
    """One number from Gumbel(0, 1) for each candidate: a function of (seed, label, candidate, step) alone."""
    return [-math.log(-math.log(_uniform(f"{seed}\0{label}\0{candidate}\0{step}"))) for candidate in candidates]


def _uniform(text: str) -> float:
    """A number in (0, 1), the same for the same text."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") // 2**12 + 0.5) / 2**52
