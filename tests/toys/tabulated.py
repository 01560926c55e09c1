"""A space of two decisions, and a table of it."""

from __future__ import annotations

from torch import nn

from nas.benchmark.table import Table, Target
from nas.space.chooser import Chooser
from nas.space.definition import SearchSpace


def _pair(choose: Chooser, /, *, channels: int = 2) -> nn.Module:
    width = choose.width("width", [8, 16, 64])
    body = choose("body", {"conv": lambda: nn.Conv2d(channels, channels, 1), "skip": nn.Identity})
    return nn.Sequential(body, nn.Conv2d(channels, width.channels, 1), width)


PAIR = SearchSpace("toy-pair", _pair)
RESULTS = {
    "8:conv": {"val": 70.0, "test": 71.0},
    "8:skip": {"val": 60.0, "test": 59.0},
    "16:conv": {"val": 75.0, "test": 74.0},
    "16:skip": {"val": 61.0, "test": 62.0},
    "64:conv": {"val": 80.0, "test": 77.0},
    "64:skip": {"val": 79.0, "test": 78.0},
}

CSV = "".join(["network,val,test\n", *(f"{key},{row['val']},{row['test']}\n" for key, row in RESULTS.items())])
"""The results as a file."""


def toy_table() -> Table:
    """A table whose best validation and test accuracies are those of two networks."""
    return Table.of("toy-pair", RESULTS, targets={"toy": Target("val", "test")})
