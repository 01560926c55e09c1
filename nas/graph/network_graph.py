"""Build the graph of a search space, or of one genotype. Pictures, text trees and graph files are made from it.

The edges follow `forward`, which runs on values without data (`nas.graph.trace`). A `Sequential` shows all of its
children, any other module those that contain decisions. If `forward` branches on data it cannot run this way, and the
children are drawn as a chain.

A module class may declare its flow in an attribute `wiring` of pairs (source child, target child):

>>> class Deraining(nn.Module):
...     wiring = (("frames", "alignment"), ("alignment", "dna"), ("alignment", "cna"), ("dna", "sum"), ("cna", "sum"),
...               ("sum", "output"))

`input` (or `frames`) and `output` are the input and output of the module, `input.0` is its first input only. Edges pass
through a child that is absent or None. A child of a child has a path, such as `cells.0`. List the edges to a child with
several inputs in the order of these inputs. Wire every child that contains decisions.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Literal

import networkx as nx
import torch
from torch import nn

from nas.errors import SpaceError
from nas.genotype.decision import NONE, Choice
from nas.genotype.file import Genotype
from nas.graph.dataflow import Box, Flow, Part, Title, Wire, in_series, joined, listed
from nas.graph.scope import SOURCES, Scope, alone, children_of, decides, inputs_of, title_of
from nas.graph.trace import Port, Value, calls_to, mapped, merged, values
from nas.space.cell import Cell, Chain
from nas.space.definition import Description
from nas.space.mixed import ChosenDepth, Decided, Node, candidates_of

if TYPE_CHECKING:
    Graph = nx.DiGraph[str]
else:
    Graph = nx.DiGraph

Cells = Literal["beside", "open", "closed"]


def build_graph(
    description: Description, choices: Mapping[str, Choice] | Genotype | None = None, cells: Cells = "beside"
) -> Graph:
    """Build the graph of a space (all candidates), or of one genotype (only its choices).

    The attributes of nodes are texts and integers. `kind` is one of

    - `input`, `output`, `module`;
    - `state`: a node of a DAG cell, or a `+`;
    - `cell`: a `Cell` or `Chain`; `cell` is its label. A group of this label shows its inside once;
    - `decision` (a macro decision), `operation` (a micro decision), `width`, `depth`: `decision` is the label,
      `candidates` are the candidates, comma-separated, `chosen` is the choice of the genotype, or empty;
    - `group`: a frame around the nodes whose `group` is its id. It has no edges, and may also show a decision.

    `multiplicity` counts equal neighbours that are drawn once. `unused` is 1 if no path leads to an output, else 0.
    Edges have `label`, `decision`, `chosen` and `candidates`; in a DAG cell these describe the operation. The graph has
    `space` and `operations`, all micro candidates.

    Args:
        description: the space, described with its options.
        choices: a genotype, which is drawn with its own options, or choices by label; None for all candidates.
        cells: where the inside of a cell is shown: `beside` the network, `open` at each place, with operations as
            nodes, or nowhere (`closed`).

    Raises:
        SpaceError: choices do not fit the space, or a `wiring` has a cycle or leaves out a decision.
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
    with calls_to(walk.called, network) as walk.forwards:
        walk.open("", "", walk.part(network), inputs_of(network))
        done: set[str] = set()
        while waiting := [title for title in walk.panels if title not in done]:  # a panel may add others
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
        self.outputs: list[str] = []
        self.scopes: list[Scope] = []
        self.forwards: Mapping[nn.Module, Callable[..., Any]] = {}

    def choice(self, label: str) -> str:
        return "" if self.choices is None else listed(self.choices[label])

    def part(self, module: nn.Module, micro: bool = False) -> Part:
        """Return the part of a module, called with the inputs that its `forward` requires."""
        if isinstance(module, Node):
            count = max(map(int, candidates_of(module)), default=0) + 1
            return self._seen(module, [[Value() for _ in range(count)]], {}, micro)[0]
        inputs = inputs_of(module)
        positional = [Value() for by_name in inputs.values() if not by_name]
        named = {name: Value() for name, by_name in inputs.items() if by_name}
        return self._seen(module, positional, named, micro)[0]

    def called(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """Return the result of a call to a module while its parent is traced."""
        scope = self.scopes[-1]
        if not scope.everything and not decides(module):
            return Value(*(port for value in values((args, kwargs)) for port in value.ports))
        return scope.add(module, *self._seen(module, args, kwargs))

    def _seen(self, module: nn.Module, args: Any, kwargs: Any, micro: bool = False) -> tuple[Part, Any, Any]:
        """Return the part of a module, the inputs of the part, and its result: values with ports of the part."""
        whole = (args, kwargs), Value(("output", None))
        if not decides(module):
            return Box("module", type(module).__name__), *whole
        if isinstance(module, Cell | Chain):
            if self.shown == "open":
                return self._opened(module), *whole
            if self.shown == "beside":
                self.panels.setdefault(module.label, module)
            return Box("cell", module.label, cell=module.label), *whole
        if isinstance(module, Decided):
            return self._decided(module, micro, args, kwargs)
        if hasattr(module, "wiring"):
            return self._wired(module), *whole
        try:
            part, returned = self._traced(module, args, kwargs, self.forwards[module])
        except SpaceError:
            raise
        except Exception:  # noqa: BLE001 - a forward that needs data may raise anything
            children = children_of(module)
            scope = Scope(module, True)
            for path, child in children.items():
                scope.parts[path] = part = self.part(child)
                scope.titles[path] = scope.title(path, child, part)
            return alone(in_series(scope.parts, scope.titles), 1, scope)[0], *whole
        return part, (args, kwargs), returned

    def _traced(
        self, module: nn.Module, args: Any, kwargs: Any, run: Callable[..., Any], frame: Box | None = None
    ) -> tuple[Part, Any]:
        """Trace the flow inside a module."""
        scope = Scope(module, isinstance(module, nn.Sequential | Decided))
        numbers, outputs = itertools.count(), itertools.count()
        args, kwargs = mapped((args, kwargs), lambda _: Value(("input", next(numbers))))
        self.scopes.append(scope)
        try:
            result = run(*args, **kwargs)
        finally:
            self.scopes.pop()

        def left(value: Value) -> Value:
            port = ("output", next(outputs))
            scope.wires += [(source, port) for source in value.ports]
            return Value(port)

        result = mapped(result, left)
        for path, child in children_of(module).items():
            if not any(each == path or each.startswith(f"{path}.") for each in scope.calls) and decides(child):
                scope.add(child, self.part(child))  # nothing calls it
        flow = joined(scope.parts, scope.wires, scope.titles)
        if frame is not None:
            return replace(flow, frame=frame), result
        part, onto = alone(flow, next(numbers), scope)
        return part, mapped(result, lambda value: Value(*(onto.get(port, port) for port in value.ports)))

    def _wired(self, module: Any) -> Flow:
        children = dict(module.named_modules(remove_duplicate=False))
        wires = [("input" if source in SOURCES else source, target) for source, target in module.wiring]
        keys = dict.fromkeys(key for wire in wires for key in wire if key.partition(".")[0] not in ("input", "output"))
        wiring = f"the wiring of {type(module).__name__}"
        for path, child in children.items():
            if isinstance(child, Decided) and not any(f"{path}.".startswith(f"{key}.") for key in keys):
                raise SpaceError(f"{wiring} must name '{path}', which has decisions, got {listed(keys)}")
        flow = nx.DiGraph(wires)
        if not nx.is_directed_acyclic_graph(flow):
            raise SpaceError(f"{wiring} must lead from 'input' to 'output', got a cycle")
        order = nx.lexicographical_topological_sort(flow, [*flow].index)
        parts: dict[str, Part] = {}
        titles: dict[str, Title] = {}
        for key in [key for key in order if key in keys]:
            if (child := children.get(key)) is None:
                parts[key] = Flow((), ((("input", None), ("output", None)),))
            else:
                parts[key] = self.part(child)
                titles[key] = title_of(key, child, parts[key])
        inputs = {key: len(inputs_of(child)) for key in keys if (child := children.get(key)) is not None}
        totals, counts = Counter(target for _, target in wires), Counter[str]()

        def wire(source: str, target: str) -> Wire:
            end, _, number = source.partition(".")
            port: Port = (end, int(number)) if end == "input" and number else (source, None)
            counts[target] += 1
            ordered = totals[target] == inputs.get(target, 1) > 1
            return port, (target, counts[target] - 1 if ordered else None)

        return joined(parts, [wire(*ends) for ends in wires], titles)

    def _decided(self, module: Decided, micro: bool, args: Any, kwargs: Any) -> tuple[Part, Any, Any]:
        decision, chosen = self.decisions[module.label], self.choice(module.label)
        kind = decision.kind if decision.kind != "operation" else "operation" if micro else "decision"
        box = Box(kind, module.label, module.label, chosen, listed(decision.candidates))
        branches = candidates_of(module)
        if not isinstance(module, Node) and not any(map(decides, branches.values())):
            return box, (args, kwargs), Value(("output", None))

        def run(*args: Any, **keywords: Any) -> Any:
            outputs = []
            for name, branch in branches.items():
                self.scopes[-1].calling = name
                given = (args[0][int(name)],) if isinstance(module, Node) else args
                outputs.append(branch(*given, **keywords))
                args = (outputs[-1], *args[1:]) if isinstance(module, ChosenDepth) else args
            return args[0] if isinstance(module, ChosenDepth) else merged(*outputs)

        part, returned = self._traced(module, args, kwargs, run, replace(box, kind="group"))
        return part, (args, kwargs), returned

    def _opened(self, cell: Cell | Chain) -> Flow:
        frame = Box("group", cell.label, cell=cell.label)
        if isinstance(cell, Chain):
            return replace(self._row(cell), frame=frame)
        parts: dict[str, Part] = {str(state): Box("input", f"input {state}") for state in range(cell.inputs)}
        wires: list[tuple[Port, Port]] = [(("input", state), (str(state), None)) for state in range(cell.inputs)]
        for number, node in enumerate(cell.nodes, cell.inputs):
            state = str(number)
            parts[state] = Box("state", state)
            for source, edge in candidates_of(node).items() if isinstance(node, Node) else ():
                if isinstance(edge, Decided) and self.choice(edge.label) != NONE:
                    name = f"{state}<-{source}"
                    parts[name] = self.part(edge, micro=True)
                    wires += [((source, None), (name, None)), ((name, None), (state, None))]
            if cell.output == "concat":
                wires.append(((state, None), ("concat", None)))
        last = str(len(cell.nodes) + cell.inputs - 1) if cell.output == "last" else "concat"
        parts.setdefault(last, Box("output", "concat"))
        return Flow(tuple(parts.items()), (*wires, ((last, None), ("output", None))), frame)

    def panel(self, title: str, module: nn.Module) -> None:
        """Add a separate group for the inside of a cell, or of a candidate on an edge."""
        panel = f"cell {title}"
        if isinstance(module, Cell):
            self._dag(panel, title, module)
            return
        self._add(panel, "", Box("group", title))
        inside = self._row(module) if isinstance(module, Chain) else self.part(module)
        self.open(f"{panel}/", panel, inside, inputs_of(module))

    def _row(self, chain: Chain) -> Flow:
        row = in_series({str(i): self.part(step, micro=True) for i, step in enumerate(chain, 1)})
        if not chain.residual:
            return row
        last = row.parts[-1][0]
        adding: tuple[Wire, ...] = tuple(((name, None), ("+", None)) for name in (last, "input"))
        wires = (*row.wires[:-1], *adding, (("+", None), ("output", None)))
        return Flow((*row.parts, ("+", Box("state", "+"))), wires)

    def _dag(self, panel: str, title: str, cell: Cell) -> None:
        nodes = {number: node for number, node in enumerate(cell.nodes, cell.inputs) if isinstance(node, Node)}
        edges = [
            (source, str(number), self._edge(edge))
            for number, node in nodes.items()
            for source, edge in candidates_of(node).items()
            if isinstance(edge, Decided)
        ]
        caption = self._caption(nodes.values(), {box.candidates for *_, box in edges})
        self._add(panel, "", Box("group", title, caption=caption))
        states = [*range(cell.inputs), *nodes]
        for state in states:
            box = Box("state", str(state)) if state in nodes else Box("input", f"input {state}")
            self._add(f"{panel}/{state}", panel, box)
        self.outputs.append(f"{panel}/<output>")
        self._add(self.outputs[-1], panel, Box("output", "output" if cell.output == "last" else "concat"))
        for source, target, box in edges:
            if box.chosen != NONE:
                self._link(f"{panel}/{source}", f"{panel}/{target}", box)
        for state in [states[-1]] if cell.output == "last" else nodes:
            self._link(f"{panel}/{state}", f"{panel}/<output>")

    def _edge(self, edge: Decided) -> Box:
        for name, child in candidates_of(edge).items():
            if decides(child):
                title = child.label if isinstance(child, Cell | Chain) else f"{edge.label}: {name}"
                self.panels.setdefault(title, child)
        chosen = self.choice(edge.label)
        return Box("operation", chosen, edge.label, chosen, listed(self.decisions[edge.label].candidates))

    def _caption(self, nodes: Iterable[Node], candidates: set[str]) -> str:
        """Return what applies to all edges of a cell if nothing is chosen."""
        if self.choices is not None:
            return ""
        decisions = [self.decisions[node.label] for node in nodes]
        keep = max(decision.keep for decision in decisions)
        pruned = any(decision.keep < len(decision.candidates) for decision in decisions)
        each = f"each edge one of {candidates.pop()}" if len(candidates) == 1 else "each edge one of several"
        return f"{each}; each node keeps {keep} of its in-edges" if pruned else each

    def open(self, path: str, group: str, part: Part, sources: Collection[str]) -> None:
        """Add a part with new input nodes and a new output node."""
        inputs = [f"{path}<input>"] if len(sources) == 1 else [f"{path}<input {name}>" for name in sources]
        for node, source in zip(inputs, sources, strict=True):
            self._add(node, group, Box("input", source))
        bare = isinstance(part, Flow) and part.frame is None
        whole = part if bare else Flow((("0", part),), _through(len(sources)))
        first, last = self._emit(path, group, whole)
        self.outputs.append(f"{path}<output>")
        self._add(self.outputs[-1], group, Box("output", "output"))
        for number, node in enumerate(inputs):
            for end in _ends(first, number if len(inputs) > 1 else None):
                self._link(node, end)
        for end in last.values():
            self._link(end, self.outputs[-1])

    def _emit(self, path: str, group: str, part: Part) -> tuple[_Ends, _Ends]:
        """Add a part to the graph; returns the ids of the nodes at its inputs and outputs."""
        box = part if isinstance(part, Box) else part.frame
        if box is not None:
            self._add(path, group, box)
        if isinstance(part, Box):
            return {None: path}, {None: path}
        first: _Ends = {port: f"{path}\0first {port}" for (source, port), _ in part.wires if source == "input"}
        last: _Ends = {port: f"{path}\0last {port}" for _, (target, port) in part.wires if target == "output"}
        self.ends += [*first.values(), *last.values()]
        self.graph.add_nodes_from([*first.values(), *last.values()])
        inner = f"{path}/" if path and not path.endswith("/") else path
        ends = {name: self._emit(inner + name, path if box else group, item) for name, item in part.parts}
        for (source, out), (target, into) in part.wires:
            left = [first[out]] if source == "input" else _ends(ends[source][1], out)
            right = [last[into]] if target == "output" else _ends(ends[target][0], into)
            for a, b in itertools.product(left, right):
                self._link(a, b)
        return first, last

    def _add(self, path: str, group: str, box: Box) -> None:
        self.graph.add_node(path, **asdict(box), group=group)

    def _link(self, source: str, target: str, box: Box | None = None) -> None:
        box = box or Box("", "")
        texts = {"label": box.label, "decision": box.decision, "chosen": box.chosen, "candidates": box.candidates}
        self.graph.add_edge(source, target, **texts)

    def finished(self) -> Graph:
        """Return the graph; edges through the ends of flows are replaced by edges from box to box."""
        for end in self.ends:
            for source, target in itertools.product([*self.graph.pred[end]], [*self.graph.succ[end]]):
                self._link(source, target)
            self.graph.remove_node(end)
        used = set(self.outputs).union(*(nx.ancestors(self.graph, output) for output in self.outputs))
        for name, node in self.graph.nodes(data=True):
            node["unused"] = int(name not in used and node["kind"] != "group")
        return self.graph


_Ends = dict[int | None, str]
"""Nodes at the inputs, or outputs, of a part, by port."""


def _ends(ends: _Ends, port: int | None) -> list[str]:
    return [node for number, node in ends.items() if None in (port, number) or number == port]


def _through(inputs: int) -> tuple[Wire, ...]:
    """Return the wires of a flow with a single part."""
    first: list[Wire] = (
        [(("input", i), ("0", i)) for i in range(inputs)] if inputs > 1 else [(("input", None), ("0", None))]
    )
    return (*first, (("0", None), ("output", None)))
