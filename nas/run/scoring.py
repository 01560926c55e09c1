"""Scores of files that methods wrote, with what a page shows of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from nas.errors import ConfigError
from nas.run.prediction import options_for
from nas.run.task import Task

Scores = Mapping[str, float]


class Picture(NamedTuple):
    """A picture with a title."""

    title: str
    pixels: Tensor
    """`(3, height, width)` uint8."""


class Exhibit(NamedTuple):
    """Pictures to compare, in rows; a column has one method."""

    title: str
    rows: Sequence[Sequence[Picture]]


class Item(NamedTuple):
    """The scores of one method on one item, such as a frame, of a part of the data, such as a clip."""

    part: str
    item: int
    method: str
    scores: Scores


class Files(NamedTuple):
    """Files to score: what methods wrote, and what networks are to write."""

    truth: Path
    """What the outputs should be: a file, or a folder."""
    outputs: Mapping[str, Path]
    """Of each method, by its name."""
    source: Path | None = None
    """The input of the methods."""
    networks: Mapping[str, nn.Module] = {}
    """By name, in eval mode: the task applies them to the source."""
    folder: Path = Path()
    """Where the outputs of the networks go: a new folder with the name of each."""


class Scoring(NamedTuple):
    """The scores of methods on the same data."""

    totals: Mapping[str, Scores]
    """Over all parts, by method; baselines such as the input first."""
    judged: str
    """The method whose worst items are shown."""
    parts: Mapping[str, Mapping[str, Scores]]
    """By part and method."""
    items: Sequence[Item]
    """The worst first."""
    metrics: Mapping[str, str]
    """What each metric is, in words, in the order of columns; the first one ranks items."""
    statement: str
    """How scores were taken, a line each."""
    skipped: Sequence[str] = ()
    """What was not scored, a line each."""
    part: str = "part"
    """What a part is called."""
    item: str = "item"
    """What an item is called."""
    worst: Sequence[Exhibit] = ()
    """The worst items first."""
    exhibits: Mapping[str, Sequence[Exhibit]] = {}
    """Other pictures, by the heading of their section."""
    legend: str = ""
    """What the colours of pictures mean."""


def score_files(
    task: type[Task],
    name: str,
    files: Files,
    options: Mapping[str, Any],
    progress: Callable[[int, int], None] | None = None,
) -> Scoring:
    """Call the class method `score_files` of a task with the options that it takes.

    Args:
        task: the class of the task.
        name: of the task, for messages.
        files: what to score.
        options: the user's, by name; converted by the annotations of the method.
        progress: called with (done, total) if the method takes it.

    Raises:
        ConfigError: the task has no such method, does not take an option, or cannot convert its value.
    """
    if not scores_files(task):
        raise ConfigError(
            f"task '{name}' cannot score files: {task.__qualname__} has no class method score_files(files)"
        )
    method: Callable[..., Scoring] = task.score_files
    offered = {"progress": progress}
    arguments = options_for(method, options, f"task '{name}'", offered, positional=1, hidden=("progress",))
    return method(files, **arguments)


def scores_files(task: type[Task]) -> bool:
    """Whether a class of tasks defines the class method `score_files`."""
    own: Any = task.score_files
    return own.__func__ is not Task.score_files.__func__  # type: ignore[attr-defined]
