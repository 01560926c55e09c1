"""What a relaxation is."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from nas.declarations import EVERY_CANDIDATE, LEARNED, SAME_CANDIDATES, SHARES, Declaration

USUAL = Declaration(
    reads=frozenset({"logits"}),
    writes=frozenset({"mixing weights"}),
    gives=frozenset({SHARES, EVERY_CANDIDATE, LEARNED, SAME_CANDIDATES}),
)
"""What a relaxation declares that has no declaration of its own."""


class Relaxation(Protocol):
    """A module that turns logits into mixing weights: register its class as a `relaxation`.

    In eval mode it is deterministic, since a genotype is derived from its weights. It has no counters: what changes
    over a search is a function of the step. The following are optional:

    - `draw(logits, draw)`: the mixing weights of one step of a search, if they depend on the step or on random numbers
      (see `nas.relaxation.sampling.Sampling`).
    - `strengths(logits)`: what a genotype is derived from, if not the mixing weights of eval mode, `(candidates,)`.
    - `after_step(before, after, draw)`: the logits after a step of their optimizer, given those before and after it, if
      the step must be corrected.
    - `passes(decisions)`: the number of forward passes whose losses a step of a search adds up, if not one; it raises
      `ConfigError` for decisions that it cannot handle.
    - a declaration by `nas.declarations.declares`; without one, `USUAL` holds: all candidates are computed, and their
      weights sum to 1.

    Example:
        >>> @nas.register("relaxation", "squared")
        ... class Squared(nn.Module):
        ...     def forward(self, logits):
        ...         weights = logits.softmax(-1).square()
        ...         return weights / weights.sum()
    """

    def __call__(self, logits: Tensor, /) -> Tensor:
        """Return the mixing weights `(candidates,)`, in [0, 1], of the logits `(candidates,)` of one decision."""
