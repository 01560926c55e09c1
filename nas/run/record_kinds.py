"""The fields of the records of a run that other code counts on, by their kind; checked when they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from nas.errors import InvalidFileError
from nas.files import convert

EDGES = "edges"


class Train(msgspec.Struct):
    """What a level did in a step; other fields are the terms of its regularizers."""

    step: int
    level: str = ""


class Observed(msgspec.Struct):
    """What an observer returned; all other fields are numbers."""

    step: int
    observer: str


class Decisions(msgspec.Struct):
    """The candidates of each decision."""

    decisions: dict[str, list[str | float]]


class Mixing(msgspec.Struct):
    """The mixing weights of each decision."""

    step: int
    weights: dict[str, list[float | None]]


class Edges(msgspec.Struct):
    """The factor of each in-edge of a node, by source, and the largest mixing weight on it."""

    step: int
    edges: dict[str, dict[str, tuple[float | None, float | None]]]


class Evaluation(msgspec.Struct):
    """The score of a proposal of a searcher, and the best so far."""

    step: int
    score: float | None
    best: float
    choices: dict[str, Any]


class Evaluate(msgspec.Struct):
    """The scores of a network, with the statement of its task."""

    statement: str = ""
    parts: dict[str, dict[str, Any]] | None = None
    best: dict[str, str] = {}


class Stopping(msgspec.Struct):
    """The end of a search by a stopping rule."""

    step: int
    rule: str
    reason: str
    genotype: int
    steps: int


class Stopped(msgspec.Struct):
    """The end of a run whose time was spent."""

    step: int
    steps: int


class Frozen(msgspec.Struct):
    """Operations that were frozen, of how many."""

    step: int
    level: str
    operations: list[str]
    of: int


class Backoff(msgspec.Struct):
    """A learning rate that was lowered."""

    step: int
    level: str
    factor: float


class Origin(msgspec.Struct):
    """The folder of the search that a run started from."""

    search: str


KINDS: Mapping[str, type[msgspec.Struct]] = {
    "train": Train,
    "observer": Observed,
    "decisions": Decisions,
    "mixing": Mixing,
    EDGES: Edges,
    "evaluation": Evaluation,
    "evaluate": Evaluate,
    "stopping": Stopping,
    "stopped": Stopped,
    "frozen": Frozen,
    "backoff": Backoff,
    "origin": Origin,
}
"""Other kinds are not checked."""


def require_fields(record: Mapping[str, Any], where: str) -> None:
    """Raise `InvalidFileError` that begins with `where` unless a record has the fields of its kind."""
    kind = KINDS.get(record["kind"])
    if kind is None:
        return
    convert(record, kind, where)
    if kind is Observed:
        for name, value in record.items():
            if name not in ("kind", "observer") and not isinstance(value, int | float | None):
                raise InvalidFileError(f"{where}: '{name}' must be a number or null, got {value!r}")
