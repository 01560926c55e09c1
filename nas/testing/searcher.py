"""What every searcher must satisfy: a test class to inherit from.

>>> class TestGreedy(SearcherTests):
...     searcher = "greedy"
"""

from __future__ import annotations

import io
import math
from typing import ClassVar

import torch

from nas.errors import NASError
from nas.genotype.file import Genotype
from nas.searchers.searcher import Searcher
from nas.testing.small_space import EVERY_KIND
from nas.testing.subject import Subject, made, unchanged

EVALUATIONS = 40


DESCRIPTION = EVERY_KIND.describe()


class SearcherTests:
    """Conformance tests of a searcher: subclass it in a test module, as `Test...`, and name the searcher."""

    searcher: ClassVar[Subject]
    """A name, a mapping of `name` and arguments, or a class."""

    def test_proposals_fit_the_space(self) -> None:
        for genotype in self._course(self._made()):
            decisions = DESCRIPTION.decisions
            exist = {label for label, decision in decisions.items() if decision.active(genotype.choices)}
            assert exist == set(genotype.choices), f"decisions {sorted(exist)} exist, got {genotype.choices}"
            for label, choice in genotype.choices.items():
                expected = decisions[label].expected
                assert decisions[label].accepts(choice), f"'{label}' must be {expected}, got {choice!r}"
            node = genotype.choices["node"]
            assert isinstance(node, tuple)
            assert all(genotype.choices[f"edge/{source}"] != "none" for source in node), (
                "a node that selects its in-edges takes no `none` on them"
            )

    def test_equal_seeds_give_equal_courses(self) -> None:
        first, second = (self._course(self._made(3)) for _ in range(2))
        assert first == second, "two searchers with equal seeds and scores propose different genotypes"

    def test_seeds_matter(self) -> None:
        assert self._course(self._made(0)) != self._course(self._made(1)), "seeds 0 and 1 give the same course"

    def test_a_loaded_state_continues_the_course(self) -> None:
        whole = self._course(self._made())
        resumed, course = self._made(), list[Genotype]()
        for _ in range(EVALUATIONS):
            file = io.BytesIO()
            torch.save(resumed.state_dict(), file)
            file.seek(0)
            resumed = self._made()
            resumed.load_state_dict(torch.load(file, weights_only=True))
            course += self._course(resumed, 1)
        assert course == whole, (
            "a searcher with the state of another one must continue its course; name what it learns in `state`"
        )

    def test_several_proposals_may_be_open(self) -> None:
        searcher = self._made()
        genotypes = [searcher.ask() for _ in range(EVALUATIONS // 2)]
        for genotype in reversed(genotypes):
            searcher.tell(genotype, objective(genotype))
        assert self._course(searcher, 5), "a searcher must propose after scores were told in another order"

    def test_a_score_that_is_not_finite_is_refused_in_one_line(self) -> None:
        searcher = self._made()
        for score in (math.nan, math.inf, -math.inf):
            reason = _refusal(searcher, score)
            assert reason, f"a score of {score} must be refused with a NASError"
            assert "\n" not in reason, f"the reason must be one line, got {reason}"

    def test_random_numbers_come_from_the_seed(self) -> None:
        with unchanged("a searcher"):
            self._course(self._made())

    def _course(self, searcher: Searcher, evaluations: int = EVALUATIONS) -> list[Genotype]:
        """The proposals of a searcher that is told their scores."""
        found = []
        for _ in range(evaluations):
            found.append(searcher.ask())
            searcher.tell(found[-1], objective(found[-1]))
        return found

    def _made(self, seed: int = 0) -> Searcher:
        searcher = made("searcher", type(self).searcher, DESCRIPTION, seed=seed)
        assert isinstance(searcher, Searcher), (
            f"a searcher must inherit nas.searchers.searcher.Searcher, got {searcher!r}"
        )
        return searcher


def objective(genotype: Genotype) -> float:
    """A score with a slope, and steps between equal slopes."""
    choices = genotype.choices
    tanh = sum(choice == "tanh" for choice in choices.values())
    return tanh - float(choices["depth"] == 2) + 0.1 * (choices["node"] == (0, 2)) + 0.01 * len(choices)


def _refusal(searcher: Searcher, score: float) -> str:
    try:
        searcher.tell(searcher.ask(), score)
    except NASError as error:
        return str(error)
    return ""
