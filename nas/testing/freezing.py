"""What every freezing must satisfy: a test class to inherit from.

>>> class TestAtOnce(FreezingTests):
...     freezing = "at_once"
"""

from __future__ import annotations

import copy
from typing import ClassVar

import torch
from torch import Tensor

from nas.multilevel.operation_freezing import Freezing
from nas.testing.subject import Subject, made, reloaded, unchanged

STEPS = 60
OPERATIONS = ("cell.edges.0.gate", "cell.edges.0.conv", "cell.edges.1.gate", "cell.edges.1.conv")


class FreezingTests:
    """Conformance tests of a freezing: subclass it in a test module, as `Test...`, and name the freezing.

    It sees gradients of four operations. Those of validation and training agree in part, all along.
    """

    freezing: ClassVar[Subject]
    """A name, a mapping of `name` and arguments, or a class."""

    def test_it_freezes_operations_that_it_is_given_once(self) -> None:
        live = list(OPERATIONS)
        rule = self._made()
        for step in range(STEPS):
            chosen = list(rule(*_gradients(step, live)))
            assert set(chosen) <= set(live), f"operations that are not frozen are {live}, got {chosen}"
            assert len(set(chosen)) == len(chosen), f"an operation must be frozen once, got {chosen}"
            live = [name for name in live if name not in chosen]

    def test_a_loaded_state_continues_the_course(self) -> None:
        whole = _course(self._made(), 0, STEPS)
        for half in range(STEPS):
            first, second = self._made(), self._made()
            before = _course(first, 0, half)
            second.load_state_dict(reloaded(first.state_dict()))
            after = _course(second, half, STEPS)
            assert before + after == whole, "a saved and loaded rule freezes other operations, or at other steps"

    def test_nothing_changes(self) -> None:
        rule = self._made()
        for step in range(STEPS):
            given = _gradients(step, OPERATIONS)
            kept = copy.deepcopy(given)
            with unchanged("a freezing"):
                rule(*given)
            for mine, theirs in zip(kept, given, strict=True):
                for name in OPERATIONS:
                    assert all(map(torch.equal, mine[name], theirs[name])), f"the gradients of '{name}' must stay"

    def _made(self) -> Freezing:
        rule: Freezing = made("freezing", type(self).freezing)
        return rule


Given = tuple[dict[str, list[Tensor]], dict[str, list[Tensor]]]


def _gradients(step: int, operations: tuple[str, ...] | list[str]) -> Given:
    """The gradients of validation and training in one step."""
    validation, training = {}, {}
    for name in operations:
        place = OPERATIONS.index(name)
        generator = torch.Generator().manual_seed(100 * step + place)
        noise = [torch.randn(2, 3, 3, generator=generator) for _ in range(2)]
        training[name] = [noise[0], noise[0][0]]
        agreement = place / (len(OPERATIONS) - 1)
        validation[name] = [agreement * n + (1 - agreement) * noise[1][: len(n)].reshape(n.shape) for n in noise[:1]]
        validation[name].append(agreement * noise[0][0] - (1 - agreement) * noise[1][0])
    return validation, training


def _course(rule: Freezing, start: int, end: int) -> list[list[str]]:
    """What a rule freezes at each step, all operations always in play."""
    return [sorted(rule(*_gradients(step, OPERATIONS))) for step in range(start, end)]
