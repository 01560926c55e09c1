"""What every derivation policy must satisfy: a test class to inherit from.

>>> class TestSampled(DerivationTests):
...     derivation = {"name": "sampled", "power": 2.0}
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, ClassVar

import torch

from nas.declarations import SEPARATE, declaration_of
from nas.derive.policy import Derivation, find_policy
from nas.errors import ConfigError
from nas.genotype.decision import Choice
from nas.genotype.file import Genotype
from nas.supernet import Supernet
from nas.testing.small_space import EVERY_KIND
from nas.testing.subject import unchanged

LIMITED = "tanh"
"""The candidate that the tests limit."""


class DerivationTests:
    """Conformance tests of a derivation policy: subclass it in a test module, as `Test...`, and name the policy.

    The space has decisions of every kind. Validation scores are made up: a function of the choices.
    """

    derivation: ClassVar[str | Mapping[str, Any] | Derivation]
    """A name, a mapping of `name` and arguments, or a function."""

    def test_choices_make_a_genotype(self) -> None:
        for supernet in self._supernets():
            EVERY_KIND.derived(self._derived(supernet))

    def test_equal_weights_and_seeds_give_equal_choices(self) -> None:
        for supernet in self._supernets():
            first = self._derived(supernet)
            with torch.random.fork_rng():
                torch.manual_seed(1)
                second = self._derived(supernet)
            assert first == second, f"the same supernet derives {first.choices}, then {second.choices}"

    def test_nothing_changes(self) -> None:
        for supernet in self._supernets():
            with unchanged("a derivation", supernet):
                self._derived(supernet)

    def test_limits_are_kept_or_refused(self) -> None:
        for supernet in self._supernets():
            with suppress(ConfigError):
                choices = self._derived(supernet, at_most={LIMITED: 0}).choices
                assert LIMITED not in choices.values(), f"'{LIMITED}' must be absent, got {choices}"

    def _derived(self, supernet: Supernet, at_most: Mapping[str, int] | None = None) -> Genotype:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a policy may warn of weak choices
            return supernet.derive(
                derivation=type(self).derivation,
                at_most=at_most,
                evaluate=_made_up,
                evaluate_recalibrated=_made_up,
                project=lambda *, rounds, epochs, lr: Projected(),
            )

    def _supernets(self) -> Iterator[Supernet]:
        """Supernets with equal, decided and random logits."""
        policy = find_policy(type(self).derivation)
        needs = declaration_of(getattr(policy, "func", policy)).needs
        generator = torch.Generator().manual_seed(0)
        for scale in (0.0, 3.0, 1.0):
            supernet = Supernet(EVERY_KIND, relaxation="sigmoid" if SEPARATE in needs else "softmax")
            for logits in supernet.logits():
                logits.data = scale * torch.randn(logits.shape, generator=generator)
            yield supernet


class Projected:
    """A `nas.derive.perturbation.Projection` without a supernet: its scores are made up."""

    def __init__(self) -> None:
        self.choices: dict[str, Choice] = {}

    def score(self, label: str, candidate: str | int) -> float:
        """Return a number that depends on the candidate and the choices so far."""
        return _made_up({**self.choices, f"without {label}": candidate})

    def choose(self, label: str, choice: Choice) -> None:
        """Make a choice."""
        self.choices[label] = choice

    def train(self) -> None:
        """There is nothing to train."""


def _made_up(choices: Mapping[str, Choice]) -> float:
    """A score in [0, 1)."""
    return int.from_bytes(hashlib.blake2b(repr(sorted(choices.items())).encode(), digest_size=4).digest()) / 2**32
