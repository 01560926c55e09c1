"""What every score that needs no training must satisfy: a test class to inherit from.

>>> class TestOutputNorm(ScoreTests):
...     score = "output_norm"
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.genotype.file import Genotype
from nas.searchers.score import Entry, zero_cost
from nas.testing.small_space import SMALL
from nas.testing.subject import unchanged

GENOTYPES = 6


class ScoreTests:
    """Conformance tests of a score: subclass it in a test module, as `Test...`, and name the score."""

    score: ClassVar[Entry]
    """A name, a mapping of `name` and arguments, or a function."""

    def test_scores_are_finite_numbers(self) -> None:
        for genotype in self._genotypes():
            value = self._scored(genotype)
            assert isinstance(value, float), f"a score must be a number, got {value!r}"
            assert math.isfinite(value), f"a score must be finite, got {value}"

    def test_a_score_is_a_function_of_genotype_batch_and_seed(self) -> None:
        genotypes = self._genotypes()
        first = [self._scored(genotype) for genotype in genotypes]
        second = [self._scored(genotype) for genotype in reversed(genotypes)][::-1]
        pairs = zip(first, second, strict=True)
        same = all(math.isclose(a, b, rel_tol=1e-6) for a, b in pairs)  # where tensors lie in memory changes rounding
        assert same, f"the same genotypes are scored {first}, then {second}"

    def test_genotypes_are_told_apart(self) -> None:
        values = {self._scored(genotype) for genotype in self._genotypes()}
        assert len(values) > 1, f"{GENOTYPES} different genotypes all have the score {values.pop():g}"

    def test_random_state_stays(self) -> None:
        genotype = self._genotypes()[0]
        with unchanged("a score"):
            self._scored(genotype)

    def _scored(self, genotype: Genotype) -> float:
        return zero_cost(type(self).score, genotype, (SMALL.example,), _loss)

    def _genotypes(self) -> list[Genotype]:
        generator = torch.Generator().manual_seed(0)
        return [SMALL.space.sample(generator) for _ in range(GENOTYPES)]


def _loss(network: nn.Module) -> Tensor:
    output: Tensor = network(SMALL.example)
    return output.square().mean()
