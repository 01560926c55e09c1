"""The graph of a search space, or of one genotype of it: what pictures, listings and exports are made from.

A module class may state its data flow in a class attribute `wiring`, pairs of (source child, target child):

>>> class Deraining(nn.Module):
...     wiring = (("frames", "alignment"), ("alignment", "dna"), ("alignment", "cna"), ("dna", "sum"), ("cna", "sum"),
...               ("sum", "output"))

`input` (or `frames`) and `output` are the module's own ends; a child that is absent or None lets its edges pass. Every
child that contains decisions must be wired. Without `wiring` a `Sequential` is a chain of its children, any other
module a chain of those of its children that contain decisions.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import networkx as nx
import torch
from torch import nn

from nas.cell import Cell, Chain
from nas.errors import SpaceError
from nas.genotype import NONE, Choice, Genotype
from nas.mixed import ChosenDepth, Decided, Node
from nas.space import Description

if TYPE_CHECKING:
    Graph = nx.DiGraph[str]
else:
    Graph = nx.DiGraph

SOURCES = ("input", "frames")
"""Names that `wiring` has for what a module receives."""


def graph(description: Description, choices: Mapping[str, Choice] | Genotype | None = None) -> Graph:
    """The graph of a space (all candidates), or of one genotype (only what it chose).

    Nodes carry texts and integers only. Their `kind` is one of

    - `input`, `output`, `module`; `state` (a node of a DAG cell, or a `+`); `cell` (a `Cell` or `Chain`, whose label
      is `cell`; a group of that label shows its inside once, however often it is used);
    - `decision` (a macro decision), `operation` (a micro decision), `width`, `depth`: `decision` is the label,
      `candidates` are all candidates, comma-separated, `chosen` what the genotype took, else empty;
    - `group`: a frame around the nodes whose `group` is its id; it has no edges, and may itself show a decision.

    `multiplicity` counts equal neighbours that are drawn once. Edges carry `label`, `decision`, `chosen` and
    `candidates`: in a DAG cell, the operation. The graph itself carries `space` and `operations`, all micro candidates.

    A genotype is drawn with its own options. Raises `SpaceError` for choices that do not fit the space and for a
    `wiring` that leaves out a decision or has a cycle.
    """
    network = description.network
    if choices is not None:
        space, options = description.space, description.options
        genotype = choices
        if not isinstance(genotype, Genotype):
            genotype = Genotype(space=space.name, choices=dict(genotype), options=options)
        with torch.device("meta"):
            network = space.derived(genotype)
        if genotype.options != options:
            description = space.describe(**genotype.options)
        choices = genotype.choices
    walk = _Walk(description, choices)
    source = next((name for name, _ in getattr(network, "wiring", ()) if name in SOURCES), "input")
    walk.open("", "", walk.part("", network), source)
    done: set[str] = set()
    while waiting := [title for title in walk.panels if title not in done]:  # a panel may ask for others
        for title in waiting:
            walk.panel(title, walk.panels[title])
        done.update(waiting)
    return walk.finished()


@dataclass(frozen=True)
class _Box:
    kind: str
    label: str
    decision: str = ""
    chosen: str = ""
    candidates: str = ""
    cell: str = ""
    caption: str = ""
    multiplicity: int = 1


@dataclass(frozen=True)
class _Flow:
    """Named parts and the wires between them; `input` and `output` are the ends of the flow itself."""

    parts: tuple[tuple[str, _Part], ...]
    wires: tuple[tuple[str, str], ...]
    frame: _Box | None = None


_Part = _Box | _Flow  # equal parts look equal: that is what collapses repeated neighbours


class _Walk:
    def __init__(self, description: Description, choices: Mapping[str, Choice] | None) -> None:
        self.decisions, self.choices = description.decisions, choices
        self.panels: dict[str, nn.Module] = {}
        cells = [module for module in description.network.modules() if isinstance(module, Cell | Chain)]
        micro = [self.decisions[m.label] for cell in cells for m in cell.modules() if isinstance(m, Decided)]
        names = dict.fromkeys(name for d in micro if d.kind == "operation" for name in d.candidates)
        self.graph: Graph = Graph(space=description.space.name, operations=_text(names))
        self.ends: list[str] = []

    def choice(self, label: str) -> str:
        return "" if self.choices is None else _text(self.choices[label])

    def part(self, name: str, module: nn.Module, micro: bool = False) -> _Part:
        """What a module looks like; `name` is its parent's attribute, or empty where that says nothing."""
        if not _decides(module):
            return _Box("module", name or type(module).__name__)
        if isinstance(module, Cell | Chain):
            self.panels.setdefault(module.label, module)
            return _Box("cell", name or module.label, cell=module.label)
        if isinstance(module, Decided):
            return self._decided(module, micro)
        if hasattr(module, "wiring"):
            return self._wired(name, module)
        steps = {
            key: self.part("" if key.isdigit() else key, child)
            for key, child in module.named_children()
            if isinstance(module, nn.Sequential) or _decides(child)
        }
        chain = _chain(steps)
        part = chain.parts[0][1] if len(chain.parts) == 1 else chain
        if isinstance(part, _Box):
            return replace(part, label=name or part.label) if part.kind == "cell" else part
        container = isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict)
        return part if container or not name else _framed(part, _Box("group", name))

    def _wired(self, name: str, module: Any) -> _Flow:
        children = dict(module.named_children())
        wires = [("input" if source in SOURCES else source, target) for source, target in module.wiring]
        keys = dict.fromkeys(key for wire in wires for key in wire if key not in ("input", "output"))
        wiring = f"the wiring of {type(module).__name__}"
        for key, child in children.items():
            if key not in keys and _decides(child):
                raise SpaceError(f"{wiring} leaves out '{key}', which has decisions; it names {_text(keys)}")
        if not nx.is_directed_acyclic_graph(nx.DiGraph(wires)):
            raise SpaceError(f"{wiring} has a cycle, expected a flow from 'input' to 'output'")
        absent = _Flow((), (("input", "output"),))
        parts = {
            key: _framed(self.part(key, children[key]), _Box("group", key)) if key in children else absent
            for key in keys
        }
        return _Flow(tuple(parts.items()), tuple(wires), _Box("group", name) if name else None)

    def _decided(self, module: Decided, micro: bool) -> _Part:
        decision, chosen = self.decisions[module.label], self.choice(module.label)
        kind = decision.kind if decision.kind != "operation" else "operation" if micro else "decision"
        box = _Box(kind, module.label, module.label, chosen, _text(decision.candidates))
        branches = dict(module.named_children())
        if not isinstance(module, Node) and not any(map(_decides, branches.values())):
            return box
        frame = replace(box, kind="group")
        if isinstance(module, ChosenDepth):
            return replace(_chain({name: self.part("", block) for name, block in branches.items()}), frame=frame)
        single = chosen and not isinstance(module, Node)
        parts = {
            name: self.part("", child) if single else _framed(self.part(name, child), _Box("group", name))
            for name, child in branches.items()
        }
        wires = [wire for name in parts for wire in (("input", name), (name, "output"))]
        return _Flow(tuple(parts.items()), tuple(wires), frame)

    def panel(self, title: str, module: nn.Module) -> None:
        """A group of its own that shows the inside of a cell, or of a candidate on an edge."""
        panel = f"cell {title}"
        if isinstance(module, Cell):
            self._dag(panel, title, module)
            return
        self._add(panel, "", _Box("group", title))
        self.open(f"{panel}/", panel, self._row(module) if isinstance(module, Chain) else self.part("", module))

    def _row(self, chain: Chain) -> _Flow:
        row = _chain({str(i): self.part("", step, micro=True) for i, step in enumerate(chain, 1)})
        if not chain.residual:
            return row
        last = row.parts[-1][0]
        wires = (*row.wires[:-1], (last, "+"), ("input", "+"), ("+", "output"))
        return _Flow((*row.parts, ("+", _Box("state", "+"))), wires)

    def _dag(self, panel: str, title: str, cell: Cell) -> None:
        nodes = {number: node for number, node in enumerate(cell.nodes, cell.inputs) if isinstance(node, Node)}
        edges = [
            (source, str(number), self._edge(edge))
            for number, node in nodes.items()
            for source, edge in node.named_children()
            if isinstance(edge, Decided)
        ]
        caption = self._caption(nodes.values(), {box.candidates for *_, box in edges})
        self._add(panel, "", _Box("group", title, caption=caption))
        states = [*range(cell.inputs), *nodes]
        for state in states:
            box = _Box("state", str(state)) if state in nodes else _Box("input", f"input {state}")
            self._add(f"{panel}/{state}", panel, box)
        self._add(f"{panel}/<output>", panel, _Box("output", "output" if cell.output == "last" else "concat"))
        for source, target, box in edges:
            if box.chosen != NONE:
                self._link(f"{panel}/{source}", f"{panel}/{target}", box)
        for state in [states[-1]] if cell.output == "last" else nodes:
            self._link(f"{panel}/{state}", f"{panel}/<output>")

    def _edge(self, edge: Decided) -> _Box:
        for name, child in edge.named_children():
            if _decides(child):
                title = child.label if isinstance(child, Cell | Chain) else f"{edge.label}: {name}"
                self.panels.setdefault(title, child)
        chosen = self.choice(edge.label)
        return _Box("operation", chosen, edge.label, chosen, _text(self.decisions[edge.label].candidates))

    def _caption(self, nodes: Iterable[Node], candidates: set[str]) -> str:
        """What holds for the edges of a cell while nothing is chosen."""
        if self.choices is not None:
            return ""
        decisions = [self.decisions[node.label] for node in nodes]
        keep = max(decision.keep for decision in decisions)
        pruned = any(decision.keep < len(decision.candidates) for decision in decisions)
        each = f"each edge one of {candidates.pop()}" if len(candidates) == 1 else "each edge one of several"
        return f"{each}; each node keeps {keep} of its in-edges" if pruned else each

    def open(self, path: str, group: str, part: _Part, source: str = "input") -> None:
        """Add a part between an input and an output node of its own."""
        self._add(f"{path}<input>", group, _Box("input", source))
        bare = isinstance(part, _Flow) and part.frame is None
        first, last = self._emit(path, group, part if bare else _chain({"0": part}))
        self._add(f"{path}<output>", group, _Box("output", "output"))
        self._link(f"{path}<input>", first)
        self._link(last, f"{path}<output>")

    def _emit(self, path: str, group: str, part: _Part) -> tuple[str, str]:
        """Add a part to the graph; returns the ids of its two ends."""
        box = part if isinstance(part, _Box) else part.frame
        if box is not None:
            self._add(path, group, box)
        if isinstance(part, _Box):
            return path, path
        first, last = f"{path}\0first", f"{path}\0last"
        self.ends += [first, last]
        self.graph.add_nodes_from(self.ends[-2:])
        inner = f"{path}/" if path and not path.endswith("/") else path
        ends = {name: self._emit(inner + name, path if box else group, item) for name, item in part.parts}
        ends |= {"input": (first, first), "output": (last, last)}
        for source, target in part.wires:
            self._link(ends[source][1], ends[target][0])
        return first, last

    def _add(self, path: str, group: str, box: _Box) -> None:
        self.graph.add_node(path, **asdict(box), group=group)

    def _link(self, source: str, target: str, box: _Box | None = None) -> None:
        box = box or _Box("", "")
        texts = {"label": box.label, "decision": box.decision, "chosen": box.chosen, "candidates": box.candidates}
        self.graph.add_edge(source, target, **texts)

    def finished(self) -> Graph:
        """The graph, its edges no longer through the ends of flows but from box to box."""
        for end in self.ends:
            for source, target in itertools.product([*self.graph.pred[end]], [*self.graph.succ[end]]):
                self._link(source, target)
            self.graph.remove_node(end)
        return self.graph


def _decides(module: nn.Module) -> bool:
    return any(isinstance(inner, Decided) for inner in module.modules())


def _chain(steps: Mapping[str, _Part]) -> _Flow:
    """The steps in a row, equal neighbours as one."""
    runs = [list(run) for _, run in itertools.groupby(steps.items(), key=lambda step: step[1])]
    parts = tuple((run[0][0], _times(run[0][1], len(run))) for run in runs)
    return _Flow(parts, tuple(itertools.pairwise(["input", *(name for name, _ in parts), "output"])))


def _times(part: _Part, count: int) -> _Part:
    if count == 1:
        return part
    if isinstance(part, _Box):
        return replace(part, multiplicity=part.multiplicity * count)
    frame = part.frame or _Box("group", "")
    return replace(part, frame=replace(frame, multiplicity=frame.multiplicity * count))


def _framed(part: _Part, frame: _Box) -> _Part:
    return replace(part, frame=frame) if isinstance(part, _Flow) and part.frame is None else part


def _text(names: str | int | Iterable[object]) -> str:
    return ", ".join(map(str, names)) if isinstance(names, Iterable) and not isinstance(names, str) else str(names)
