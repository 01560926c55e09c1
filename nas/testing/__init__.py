"""Conformance tests for what others add to this package.

Inherit from a class of this package in your own tests, or run them by `nas check NAME`. Imports `nas.run` and below,
and not `nas.export`, `nas.tune` or `nas.benchmark`. There is a module for each kind; `outcomes` runs its tests outside
of a test suite. Start with `relaxation`.
"""

from nas.testing.derivation import DerivationTests
from nas.testing.format import FormatTests
from nas.testing.freezing import FreezingTests
from nas.testing.hypergradient import HypergradientTests
from nas.testing.model import ModelTests
from nas.testing.observer import ObserverTests
from nas.testing.operation import OperationTests
from nas.testing.optimizer import OptimizerTests
from nas.testing.regularizer import RegularizerTests
from nas.testing.relaxation import RelaxationTests
from nas.testing.schedule import ScheduleTests
from nas.testing.score import ScoreTests
from nas.testing.search_space import SearchSpaceTests
from nas.testing.searcher import SearcherTests
from nas.testing.stopping_rule import StoppingRuleTests
from nas.testing.table import TableTests
from nas.testing.task import TaskTests
from nas.testing.wrapper import WrapperTests

__all__ = [
    "DerivationTests",
    "FormatTests",
    "FreezingTests",
    "HypergradientTests",
    "ModelTests",
    "ObserverTests",
    "OperationTests",
    "OptimizerTests",
    "RegularizerTests",
    "RelaxationTests",
    "ScheduleTests",
    "ScoreTests",
    "SearchSpaceTests",
    "SearcherTests",
    "StoppingRuleTests",
    "TableTests",
    "TaskTests",
    "WrapperTests",
]
