"""Which decisions a search has not made: the choice changed lately, or its margin is within its own variation."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import msgspec

from nas.genotype.file import Genotype, Provenance

LEAST = 3
"""The epochs that a judgment needs; before that all decisions are undecided."""


def undecided(epochs: Sequence[Genotype]) -> tuple[str, ...]:
    """The labels of the undecided decisions of the last genotype.

    A decision is undecided if its choice changed in the last quarter of the epochs, or if its margin is not above the
    standard deviation of its margins there. The quarter is rounded up and includes the epoch before it.

    Args:
        epochs: the genotypes that a search derived, epoch by epoch.
    """
    last = epochs[-1]
    margins = last.provenance.margins if last.provenance else {}
    recent = epochs[-max(LEAST, math.ceil(len(epochs) / 4) + 1) :]
    return tuple(label for label in margins if len(recent) < LEAST or not _settled(label, recent))


def judged(genotype: Genotype, epochs: Sequence[Genotype]) -> Genotype:
    """Return a genotype that names its undecided decisions in its provenance.

    Args:
        genotype: the genotype of the last epoch.
        epochs: the genotypes derived before it, epoch by epoch.
    """
    provenance = msgspec.structs.replace(genotype.provenance or Provenance(), undecided=undecided([*epochs, genotype]))
    return msgspec.structs.replace(genotype, provenance=provenance)


def _settled(label: str, recent: Sequence[Genotype]) -> bool:
    if any(genotype.choices.get(label) != recent[-1].choices[label] for genotype in recent):
        return False
    margins = [genotype.provenance.margins.get(label, 0.0) for genotype in recent if genotype.provenance]
    return margins[-1] > statistics.stdev(margins)
