"""What every schedule must satisfy: a test class to inherit from.

>>> class TestLinear(ScheduleTests):
...     schedule = {"name": "linear", "final_lr": 0.1}
"""

from __future__ import annotations

import math
from typing import ClassVar

from nas.testing.subject import Subject, made, unchanged

POINTS = [i / 50 for i in range(51)]


class ScheduleTests:
    """Conformance tests of a schedule: subclass it in a test module, as `Test...`, and name the schedule."""

    schedule: ClassVar[Subject]
    """A name, a mapping of `name` and arguments, or a function of progress."""

    def test_shares_are_finite_and_not_negative(self) -> None:
        for progress in POINTS:
            share = self._share(progress)
            assert isinstance(share, int | float), f"a schedule must return a number, got {share!r}"
            assert math.isfinite(share), f"the share at {progress:g} must be finite, got {share}"
            assert share >= 0, f"the share at {progress:g} must be at least 0, got {share:g}"

    def test_a_share_is_a_function_of_progress(self) -> None:
        with unchanged("a schedule"):
            first = [self._share(progress) for progress in POINTS]
            second = [self._share(progress) for progress in reversed(POINTS)][::-1]
        assert first == second, "the same progress has different shares; a schedule must have no memory"

    def _share(self, progress: float) -> float:
        share: float = made("schedule", type(self).schedule, progress)
        return share
