"""What every stopping rule must satisfy: a test class to inherit from.

>>> class TestWideMargins(StoppingRuleTests):
...     stopping_rule = {"name": "wide_margins", "least": 0.3}
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from nas.run.collapse import Collapse
from nas.run.stopping import Epoch, Stop, StoppingRule
from nas.space.definition import SearchSpace
from nas.supernet import Supernet
from nas.testing.small_space import SMALL
from nas.testing.subject import Subject, made, unchanged

EPOCHS = 40
STEPS = 10
"""Of an epoch."""


class StoppingRuleTests:
    """Conformance tests of a stopping rule: subclass it in a test module, as `Test...`, and name the rule.

    It sees the epochs of a made-up search, which decides slowly for the first candidates while the curvature grows.
    """

    stopping_rule: ClassVar[Subject]
    """A name, a mapping of `name` and arguments, or a class."""
    space: ClassVar[SearchSpace] = SMALL.space
    """The search space; the default has the candidates of NAS-Bench-201 in a cell `cell`."""
    options: ClassVar[Mapping[str, Any]] = {}
    """Options of the space."""

    def test_it_stops_at_an_epoch_or_continues(self) -> None:
        epochs, rule = self._epochs(), self._made()
        for count in range(1, EPOCHS + 1):
            stop = rule(epochs[:count])
            if stop is None:
                continue
            assert isinstance(stop, Stop), f"a rule must return a nas.run.stopping.Stop or None, got {stop!r}"
            assert stop.step in [each.step for each in epochs[:count]], (
                f"the step must be that of an epoch so far, got {stop.step}"
            )
            assert stop.reason, "a stop must have a reason"
            assert "\n" not in stop.reason, f"the reason must be one line, got {stop.reason}"

    def test_it_is_a_function_of_the_epochs(self) -> None:
        epochs, rule = self._epochs(), self._made()
        counts = range(1, EPOCHS + 1)
        forward = [rule(epochs[:count]) for count in counts]
        backward = [rule(epochs[:count]) for count in reversed(counts)][::-1]
        resumed = [self._made()(epochs[:count]) for count in counts]
        assert forward == backward == resumed, "equal epochs are judged differently; a rule must have no memory"

    def test_nothing_changes(self) -> None:
        epochs = self._epochs()
        kept = copy.deepcopy(epochs)
        with unchanged("a stopping rule"):
            self._made()(epochs)
        assert epochs == kept, "a rule must leave the epochs as they are"

    def test_indicators_may_be_not_finite(self) -> None:
        epochs = [
            Epoch(each.step, each.genotype, each.weights, {**each.indicators, "eigenvalue": None, "gradient": None})
            for each in self._epochs()
        ]
        self._made()(epochs)

    def _made(self) -> StoppingRule:
        described = type(self).space.describe(**self.options)
        rule: StoppingRule = made("stopping rule", type(self).stopping_rule, description=described, epochs=EPOCHS)
        return rule

    def _epochs(self) -> Sequence[Epoch]:
        space = type(self).space
        supernet = Supernet(space, **self.options)
        collapse = Collapse(space.describe(**self.options))
        found = []
        for number in range(1, EPOCHS + 1):
            for logits in supernet.logits():
                logits.data = torch.linspace(1.0, 0.0, len(logits)) * number / 10
            step = number * STEPS
            genotype = supernet.derive()
            weights = {label: w.tolist() for label, w in supernet.mixing_weights().items()}
            indicators = dict(collapse.on_epoch(step, supernet, genotype))
            indicators |= {"gradient": 1 / number, "eigenvalue": 0.1 * 1.05**number, "eigenvalue_error": 0.0}
            found.append(Epoch(step, genotype, weights, indicators))
        return found
