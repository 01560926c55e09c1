"""How threads of torch wait for work: set before torch is imported, for commands only."""

from __future__ import annotations

import os

CHOSEN = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
"""The variables by which a user chooses how threads of libgomp wait."""

SPINS = "1000"
"""Turns that an idle thread waits before it sleeps. By default libgomp takes billions, which cost other processes
their time: see docs/performance-tmics.md."""


def limit_spinning() -> None:
    """Let idle threads sleep soon, unless the user has chosen how they wait; has no effect once torch is imported."""
    if not any(name in os.environ for name in CHOSEN):
        os.environ["GOMP_SPINCOUNT"] = SPINS
