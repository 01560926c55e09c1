"""Parts of a network as they are drawn, and the wires between them. Parts that look the same compare equal."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from nas.graph.trace import Port


@dataclass(frozen=True)
class Box:
    """A part drawn as one node; its fields are the node attributes of `nas.graph.network_graph.build_graph`."""

    kind: str
    label: str
    decision: str = ""
    chosen: str = ""
    candidates: str = ""
    cell: str = ""
    caption: str = ""
    multiplicity: int = 1


Wire = tuple[Port, Port]


@dataclass(frozen=True)
class Flow:
    """Named parts and the wires between their ports. `input` and `output` are the ports of the flow itself.

    A flow with a `frame` is drawn as a group.
    """

    parts: tuple[tuple[str, Part], ...]
    wires: tuple[Wire, ...]
    frame: Box | None = None


Part = Box | Flow  # equal parts look the same, so equal neighbours are drawn once


class Title(NamedTuple):
    """Title of a part without a label: for one part alone, and for several equal parts in a row."""

    one: str = ""
    many: str = ""


def in_series(steps: Mapping[str, Part], titles: Mapping[str, Title] | None = None) -> Flow:
    """Return a flow of steps in a row; equal neighbours are merged."""
    names = ["input", *steps, "output"]
    return joined(steps, [((a, None), (b, None)) for a, b in itertools.pairwise(names)], titles)


def joined(parts: Mapping[str, Part], wires: Iterable[Wire], titles: Mapping[str, Title] | None = None) -> Flow:
    """Return a flow in which equal parts in a row are merged; the merged part has the wires of all.

    Parts are in a row if three conditions hold. A wire leads from each to the next. Every outside source of a later
    part feeds the first part too. Every outside target of an earlier part is fed by the last part too.

    Args:
        parts: the parts by name, in topological order.
        wires: the wires between their ports.
        titles: titles of parts without a label.
    """
    wires, titles = list(wires), titles or {}
    alike = {name: titled(part, titles.get(name, Title()).many) for name, part in parts.items()}
    before: dict[str, set[str]] = {name: set() for name in (*parts, "output")}
    after: dict[str, set[str]] = {name: set() for name in (*parts, "input")}
    for (source, _), (target, _) in wires:
        before[target].add(source)
        after[source].add(target)
    names = list(parts)
    heads: dict[str, str] = {}
    drawn: list[tuple[str, Part]] = []
    while names:
        first, count = names[0], _row(names, alike, before, after)
        heads.update(dict.fromkeys(names[:count], first))
        alone = titled(parts[first], titles.get(first, Title()).one)
        drawn.append((first, alone if count == 1 else repeated(alike[first], count)))
        names = names[count:]
    kept = dict.fromkeys(((heads.get(a, a), i), (heads.get(b, b), j)) for (a, i), (b, j) in wires)
    return Flow(tuple(drawn), tuple((a, b) for a, b in kept if a[0] != b[0]))


def _row(
    names: Sequence[str], alike: Mapping[str, Part], before: Mapping[str, set[str]], after: Mapping[str, set[str]]
) -> int:
    """Return how many of the names, from the first on, are in a row."""
    count = 1
    while count < len(names) and alike[names[count]] == alike[names[0]]:
        feeding = before[names[count]] - {*names[:count]}
        if names[count - 1] not in before[names[count]] or not feeding <= before[names[0]]:
            break
        count += 1
    while any(after[name] - {*names[:count]} - after[names[count - 1]] for name in names[: count - 1]):
        count -= 1
    return count


def titled(part: Part, title: str) -> Part:
    """Return a part with this title; a more specific label is kept."""
    if not title:
        return part
    if isinstance(part, Box):
        return replace(part, label=title) if part.kind in ("module", "cell") else part
    frame = part.frame or Box("group", "")
    if frame.cell:
        return replace(
            part, frame=replace(frame, label=f"{title}: cell {frame.cell}" if title != frame.cell else title)
        )
    return replace(part, frame=replace(frame, label=frame.label or title))


def repeated(part: Part, count: int) -> Part:
    """Return a part that stands for `count` equal parts."""
    if count == 1:
        return part
    if isinstance(part, Box):
        return replace(part, multiplicity=part.multiplicity * count)
    frame = part.frame or Box("group", "")
    return replace(part, frame=replace(frame, multiplicity=frame.multiplicity * count))


def framed(part: Part, frame: Box) -> Part:
    """Return a flow without a frame with this frame; any other part unchanged."""
    return replace(part, frame=frame) if isinstance(part, Flow) and part.frame is None else part


def listed(names: str | int | Iterable[object]) -> str:
    """Return names joined by commas."""
    return ", ".join(map(str, names)) if isinstance(names, Iterable) and not isinstance(names, str) else str(names)
