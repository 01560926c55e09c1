"""The graph of a search space, or of one genotype of it: what pictures, listings and exports are made from.

A module class may state its data flow in a class attribute `wiring`, pairs of (source child, target child):

>>> class Deraining(nn.Module):
...     wiring = (("frames", "alignment"), ("alignment", "dna"), ("alignment", "cna"), ("dna", "sum"), ("cna", "sum"),
...               ("sum", "output"))

`input` (or `frames`) and `output` are the module's own ends; a child that is absent or None lets its edges pass; a
child of a child has a path, such as `cells.0`. Every child that contains decisions must be wired. Without `wiring` a
`Sequential` is a chain of its children, any other module a chain of those of its children that contain decisions.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Literal

import networkx as nx
import torch
from torch import nn

from nas.cell import Cell, Chain
from nas.errors import SpaceError
from nas.genotype import NONE, Choice, Genotype
from nas.graph.flow import Box, Flow, Part, framed, in_series, joined, listed
from nas.mixed import ChosenDepth, Decided, Node
from nas.space import Description

if TYPE_CHECKING:
    Graph = nx.DiGraph[str]
else:
    Graph = nx.DiGraph

SOURCES = ("input", "frames")
"""Names that `wiring` has for what a module receives."""

Cells = Literal["beside", "open", "closed"]


def graph(
    description: Description, choices: Mapping[str, Choice] | Genotype | None = None, cells: Cells = "beside"
) -> Graph:
    """The graph of a space (all candidates), or of one genotype (only what it chose).

    Nodes carry texts and integers only. Their `kind` is one of

    - `input`, `output`, `module`; `state` (a node of a DAG cell, or a `+`); `cell` (a `Cell` or `Chain`, whose label
      is `cell`; a group of that label shows its inside once, however often it is used);
    - `decision` (a macro decision), `operation` (a micro decision), `width`, `depth`: `decision` is the label,
      `candidates` are all candidates, comma-separated, `chosen` what the genotype took, else empty;
    - `group`: a frame around the nodes whose `group` is its id; it has no edges, and may itself show a decision.

    `multiplicity` counts equal neighbours that are drawn once. Edges carry `label`, `decision`, `chosen` and
    `candidates`: in a DAG cell, the operation. The graph itself carries `space` and `operations`, all micro candidates.

    The inside of a cell is shown `beside` the rest, or at each place in it (`open`, where operations are nodes), or not
    at all (`closed`). A genotype is drawn with its own options.

    Raises `SpaceError` for choices that do not fit the space and for a `wiring` that leaves out a decision or has a
    cycle.
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
    walk = _Walk(description, choices, cells)
    source = next((name for name, _ in getattr(network, "wiring", ()) if name in SOURCES), "input")
    walk.open("", "", walk.part("", network), source)
    done: set[str] = set()
    while waiting := [title for title in walk.panels if title not in done]:  # a panel may ask for others
        for title in waiting:
            walk.panel(title, walk.panels[title])
        done.update(waiting)
    return walk.finished()


class _Walk:
    def __init__(self, description: Description, choices: Mapping[str, Choice] | None, cells: Cells) -> None:
        self.decisions, self.choices, self.shown = description.decisions, choices, cells
        self.panels: dict[str, nn.Module] = {}
        inside = [module for module in description.network.modules() if isinstance(module, Cell | Chain)]
        micro = [self.decisions[m.label] for cell in inside for m in cell.modules() if isinstance(m, Decided)]
        names = dict.fromkeys(name for d in micro if d.kind == "operation" for name in d.candidates)
        self.graph: Graph = Graph(space=description.space.name, operations=listed(names))
        self.ends: list[str] = []

    def choice(self, label: str) -> str:
        return "" if self.choices is None else listed(self.choices[label])

    def part(self, name: str, module: nn.Module, micro: bool = False) -> Part:
        """What a module looks like; `name` is its parent's attribute, or empty where that says nothing."""
        if not _decides(module):
            return Box("module", name or type(module).__name__)
        if isinstance(module, Cell | Chain):
            if self.shown == "open":
                return self._opened(name or module.label, module)
            if self.shown == "beside":
                self.panels.setdefault(module.label, module)
            return Box("cell", name or module.label, cell=module.label)
        if isinstance(module, Decided):
            return self._decided(module, micro)
        if hasattr(module, "wiring"):
            return self._wired(name, module)
        shown = {
            key: child for key, child in module.named_children() if isinstance(module, nn.Sequential) or _decides(child)
        }
        says = len(shown) > 1  # a child alone goes by the name of its parent
        series = in_series({key: self.part(key if says and not key.isdigit() else "", shown[key]) for key in shown})
        part = series.parts[0][1] if len(series.parts) == 1 else series
        if isinstance(part, Box):
            return replace(part, label=name or part.label) if part.kind == "cell" else part
        container = isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict)
        return part if container or not name else framed(part, Box("group", name))

    def _wired(self, name: str, module: Any) -> Flow:
        children = dict(module.named_modules(remove_duplicate=False))
        wires = [("input" if source in SOURCES else source, target) for source, target in module.wiring]
        keys = dict.fromkeys(key for wire in wires for key in wire if key not in ("input", "output"))
        wiring = f"the wiring of {type(module).__name__}"
        for path, child in children.items():
            if isinstance(child, Decided) and not any(f"{path}.".startswith(f"{key}.") for key in keys):
                raise SpaceError(f"{wiring} leaves out '{path}', which has decisions; it names {listed(keys)}")
        flow = nx.DiGraph(wires)
        if not nx.is_directed_acyclic_graph(flow):
            raise SpaceError(f"{wiring} has a cycle, expected a flow from 'input' to 'output'")
        order = nx.lexicographical_topological_sort(flow, [*flow].index)
        parts = {key: self._wired_part(key, children.get(key)) for key in order if key in keys}
        return joined(parts, wires, Box("group", name) if name else None)

    def _wired_part(self, key: str, child: nn.Module | None) -> Part:
        if child is None:
            return Flow((), (("input", "output"),))
        name = key.rpartition(".")[2]
        name = "" if name.isdigit() else name
        return framed(self.part(name, child), Box("group", name))

    def _decided(self, module: Decided, micro: bool) -> Part:
        decision, chosen = self.decisions[module.label], self.choice(module.label)
        kind = decision.kind if decision.kind != "operation" else "operation" if micro else "decision"
        box = Box(kind, module.label, module.label, chosen, listed(decision.candidates))
        branches = dict(module.named_children())
        if not isinstance(module, Node) and not any(map(_decides, branches.values())):
            return box
        frame = replace(box, kind="group")
        if isinstance(module, ChosenDepth):
            return replace(in_series({name: self.part("", block) for name, block in branches.items()}), frame=frame)
        single = chosen and not isinstance(module, Node)
        parts = {
            name: self.part("", child) if single else framed(self.part(name, child), Box("group", name))
            for name, child in branches.items()
        }
        wires = [wire for name in parts for wire in (("input", name), (name, "output"))]
        return Flow(tuple(parts.items()), tuple(wires), frame)

    def _opened(self, name: str, cell: Cell | Chain) -> Flow:
        frame = Box("group", name if name == cell.label else f"{name}: cell {cell.label}")
        if isinstance(cell, Chain):
            return replace(self._row(cell), frame=frame)
        parts: dict[str, Part] = {str(state): Box("input", f"input {state}") for state in range(cell.inputs)}
        wires = [("input", state) for state in parts]
        for number, node in enumerate(cell.nodes, cell.inputs):
            state = str(number)
            parts[state] = Box("state", state)
            for source, edge in node.named_children():
                if isinstance(edge, Decided) and self.choice(edge.label) != NONE:
                    parts[name := f"{state}<-{source}"] = self._decided(edge, micro=True)
                    wires += [(source, name), (name, state)]
            if cell.output == "concat":
                wires.append((state, "concat"))
        last = str(len(cell.nodes) + cell.inputs - 1) if cell.output == "last" else "concat"
        parts.setdefault(last, Box("output", "concat"))
        return Flow(tuple(parts.items()), (*wires, (last, "output")), frame)

    def panel(self, title: str, module: nn.Module) -> None:
        """A group of its own that shows the inside of a cell, or of a candidate on an edge."""
        panel = f"cell {title}"
        if isinstance(module, Cell):
            self._dag(panel, title, module)
            return
        self._add(panel, "", Box("group", title))
        self.open(f"{panel}/", panel, self._row(module) if isinstance(module, Chain) else self.part("", module))

    def _row(self, chain: Chain) -> Flow:
        row = in_series({str(i): self.part("", step, micro=True) for i, step in enumerate(chain, 1)})
        if not chain.residual:
            return row
        last = row.parts[-1][0]
        wires = (*row.wires[:-1], (last, "+"), ("input", "+"), ("+", "output"))
        return Flow((*row.parts, ("+", Box("state", "+"))), wires)

    def _dag(self, panel: str, title: str, cell: Cell) -> None:
        nodes = {number: node for number, node in enumerate(cell.nodes, cell.inputs) if isinstance(node, Node)}
        edges = [
            (source, str(number), self._edge(edge))
            for number, node in nodes.items()
            for source, edge in node.named_children()
            if isinstance(edge, Decided)
        ]
        caption = self._caption(nodes.values(), {box.candidates for *_, box in edges})
        self._add(panel, "", Box("group", title, caption=caption))
        states = [*range(cell.inputs), *nodes]
        for state in states:
            box = Box("state", str(state)) if state in nodes else Box("input", f"input {state}")
            self._add(f"{panel}/{state}", panel, box)
        self._add(f"{panel}/<output>", panel, Box("output", "output" if cell.output == "last" else "concat"))
        for source, target, box in edges:
            if box.chosen != NONE:
                self._link(f"{panel}/{source}", f"{panel}/{target}", box)
        for state in [states[-1]] if cell.output == "last" else nodes:
            self._link(f"{panel}/{state}", f"{panel}/<output>")

    def _edge(self, edge: Decided) -> Box:
        for name, child in edge.named_children():
            if _decides(child):
                title = child.label if isinstance(child, Cell | Chain) else f"{edge.label}: {name}"
                self.panels.setdefault(title, child)
        chosen = self.choice(edge.label)
        return Box("operation", chosen, edge.label, chosen, listed(self.decisions[edge.label].candidates))

    def _caption(self, nodes: Iterable[Node], candidates: set[str]) -> str:
        """What holds for the edges of a cell while nothing is chosen."""
        if self.choices is not None:
            return ""
        decisions = [self.decisions[node.label] for node in nodes]
        keep = max(decision.keep for decision in decisions)
        pruned = any(decision.keep < len(decision.candidates) for decision in decisions)
        each = f"each edge one of {candidates.pop()}" if len(candidates) == 1 else "each edge one of several"
        return f"{each}; each node keeps {keep} of its in-edges" if pruned else each

    def open(self, path: str, group: str, part: Part, source: str = "input") -> None:
        """Add a part between an input and an output node of its own."""
        self._add(f"{path}<input>", group, Box("input", source))
        bare = isinstance(part, Flow) and part.frame is None
        first, last = self._emit(path, group, part if bare else in_series({"0": part}))
        self._add(f"{path}<output>", group, Box("output", "output"))
        self._link(f"{path}<input>", first)
        self._link(last, f"{path}<output>")

    def _emit(self, path: str, group: str, part: Part) -> tuple[str, str]:
        """Add a part to the graph; returns the ids of its two ends."""
        box = part if isinstance(part, Box) else part.frame
        if box is not None:
            self._add(path, group, box)
        if isinstance(part, Box):
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

    def _add(self, path: str, group: str, box: Box) -> None:
        self.graph.add_node(path, **asdict(box), group=group)

    def _link(self, source: str, target: str, box: Box | None = None) -> None:
        box = box or Box("", "")
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
