"""What every test shares: one thread per process, reproducible examples, the toys, the folder of real data."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hypothesis
import pytest

# Before anything imports torch: pytest-xdist's workers share the cores, as do the commands that tests run.
os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.path.insert(0, str(Path(__file__).parent / "toys"))  # modules for tests and for `--import`

# Shared machines stall, so no deadline; derandomized, so that a failure is everybody's failure.
hypothesis.settings.register_profile("tests", deadline=None, derandomize=True, max_examples=25)
hypothesis.settings.load_profile("tests")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """What a test draws does not depend on which tests ran before it."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real clips and tables that `NAS_DATA` names; the test is skipped where it is not set."""
    if "NAS_DATA" not in os.environ:
        pytest.skip("NAS_DATA is not set")
    return Path(os.environ["NAS_DATA"])
