"""Which decisions a search has not made: their leader was another one of late, or leads by less than it varies."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import msgspec

from nas.genotype import Genotype, Provenance

LEAST = 3
"""The epochs without which nothing can be said; until then all decisions are undecided."""


def undecided(epochs: Sequence[Genotype]) -> tuple[str, ...]:
    """The labels of the undecided decisions of the last genotype, of those that a search derived epoch by epoch.

    A decision is undecided if its choice changed in the last quarter of the epochs, or if its margin is not above the
    standard deviation of its margins there. The quarter is rounded up, and begins with the epoch that it follows.
    """
    last = epochs[-1]
    margins = last.provenance.margins if last.provenance else {}
    recent = epochs[-max(LEAST, math.ceil(len(epochs) / 4) + 1) :]
    return tuple(label for label in margins if len(recent) < LEAST or not _settled(label, recent))


def judged(genotype: Genotype, epochs: Sequence[Genotype]) -> Genotype:
    """A genotype that names its undecided decisions in its provenance; `epochs` are those derived before it."""
    provenance = msgspec.structs.replace(genotype.provenance or Provenance(), undecided=undecided([*epochs, genotype]))
    return msgspec.structs.replace(genotype, provenance=provenance)


def _settled(label: str, recent: Sequence[Genotype]) -> bool:
    if any(genotype.choices.get(label) != recent[-1].choices[label] for genotype in recent):
        return False
    margins = [genotype.provenance.margins.get(label, 0.0) for genotype in recent if genotype.provenance]
    return margins[-1] > statistics.stdev(margins)
