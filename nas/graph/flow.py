"""Parts of a network as they look, and the wires between them; equal parts are equal."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Box:
    """What is drawn as one node; the fields are attributes of nodes of the graph (see `nas.graph.graph`)."""

    kind: str
    label: str
    decision: str = ""
    chosen: str = ""
    candidates: str = ""
    cell: str = ""
    caption: str = ""
    multiplicity: int = 1


@dataclass(frozen=True)
class Flow:
    """Named parts and the wires between them; `input` and `output` are the ends of the flow itself.

    A flow with a `frame` is drawn as a group.
    """

    parts: tuple[tuple[str, Part], ...]
    wires: tuple[tuple[str, str], ...]
    frame: Box | None = None


Part = Box | Flow  # equal parts look equal: that is what collapses repeated neighbours


def in_series(steps: Mapping[str, Part]) -> Flow:
    """The steps in a row, equal neighbours as one."""
    runs = [list(run) for _, run in itertools.groupby(steps.items(), key=lambda step: step[1])]
    parts = tuple((run[0][0], repeated(run[0][1], len(run))) for run in runs)
    return Flow(parts, tuple(itertools.pairwise(["input", *(name for name, _ in parts), "output"])))


def repeated(part: Part, count: int) -> Part:
    """A part that stands for `count` equal ones."""
    if count == 1:
        return part
    if isinstance(part, Box):
        return replace(part, multiplicity=part.multiplicity * count)
    frame = part.frame or Box("group", "")
    return replace(part, frame=replace(frame, multiplicity=frame.multiplicity * count))


def framed(part: Part, frame: Box) -> Part:
    """The part as a group, where it consists of others and is none yet."""
    return replace(part, frame=frame) if isinstance(part, Flow) and part.frame is None else part


def listed(names: str | int | Iterable[object]) -> str:
    """Names with commas between them."""
    return ", ".join(map(str, names)) if isinstance(names, Iterable) and not isinstance(names, str) else str(names)
