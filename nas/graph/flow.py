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
    return joined(steps, itertools.pairwise(["input", *steps, "output"]))


def joined(parts: Mapping[str, Part], wires: Iterable[tuple[str, str]], frame: Box | None = None) -> Flow:
    """Parts, in an order that every wire follows; equal neighbours that a wire joins are one, with the wires of all."""
    wires = dict.fromkeys(wires)
    runs: list[list[str]] = []
    for name, part in parts.items():
        last = runs[-1][-1] if runs else ""
        if (last, name) in wires and parts[last] == part:
            runs[-1].append(name)
        else:
            runs.append([name])
    heads = {name: run[0] for run in runs for name in run}
    kept = dict.fromkeys((heads.get(a, a), heads.get(b, b)) for a, b in wires)
    return Flow(
        tuple((run[0], repeated(parts[run[0]], len(run))) for run in runs),
        tuple((a, b) for a, b in kept if a != b),
        frame,
    )


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
