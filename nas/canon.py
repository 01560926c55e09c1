"""Which genotypes are one network in other words: two hashes, `iso` and `canonical`, of what their cells compute.

A cell is read as the expression of its output over its inputs, in which equal operations have equal weights.

- `iso` is the isomorphism of NAS-Bench-201 (Dong and Yang, ICLR 2020, sec. 2.1): a skip stands for its source, the
  terms of a node are in alphabetical order, and a connection that is none, or that comes from a node of a single such
  connection, is the term `#`. Of that benchmark's 15,625 cells it makes 6,466 classes.
- `canonical` goes on: terms that are zero and nodes that nothing depends on are gone, an operation on zero is zero
  (true of convolutions without bias, of batch norms in training, of poolings), and sums do not depend on how they are
  bracketed. Genotypes of one `iso` class have one `canonical` hash. Linear identities, such as the pooling of a sum,
  are not sought.

Cells of one hash may differ in their number of parameters: one may compute twice what the other computes once.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from torch import nn

from nas.cell import Cell, Chain
from nas.genotype import NONE, Choice, Genotype
from nas.mixed import Decided, Node
from nas.space import Description, find_space

Effect = Literal["operation", "identity", "zero"]


class Edge(NamedTuple):
    """A connection from an earlier state of a cell: its inputs are 0, 1, ..., then come its nodes."""

    source: int
    operation: str
    effect: Effect = "operation"


class CellGraph(NamedTuple):
    """What a cell computes: nodes that sum their in-edges, and the states that make up its output, in order."""

    inputs: int
    nodes: tuple[tuple[Edge, ...], ...]
    output: tuple[int, ...]

    def iso(self) -> str:
        """The expression as text, equal for isomorphic cells: an input is its number, an operation `(of what)@name`."""
        states = [str(number) for number in range(self.inputs)]
        for edges in self.nodes:
            states.append("+".join(sorted(_term(states[edge.source], edge) for edge in edges)))
        return ",".join(states[state] for state in self.output)

    def canonical(self) -> str:
        """A hash of the expression without zeros, identities and dead nodes."""
        states = [Counter({str(number): 1}) for number in range(self.inputs)]
        for edges in self.nodes:
            terms: Counter[str] = Counter()
            for edge in edges:
                source = states[edge.source]
                if edge.effect == "identity":
                    terms.update(source)
                elif edge.effect == "operation" and source:
                    terms[_digest([edge.operation, source])] += 1
            states.append(terms)
        return _digest([states[state] for state in self.output])


class Canon(NamedTuple):
    """The hashes of a genotype, and its cells by label."""

    iso: str
    canonical: str
    cells: dict[str, CellGraph]


def canon(genotype: Genotype, description: Description | None = None) -> Canon:
    """The hashes of a genotype that fits its space. Choices outside cells count as they are.

    `description` is that of the space with the genotype's options, where it is at hand. Raises what `find_space` and
    `SearchSpace.describe` do.
    """
    if description is None:
        description = find_space(genotype.space).describe(**genotype.options)
    found: dict[str, list[Cell | Chain]] = defaultdict(list)
    for module in description.network.modules():
        if isinstance(module, Cell | Chain):
            found[module.label].append(module)
    rest, cells = dict(genotype.choices), dict[str, CellGraph]()
    for label, alike in found.items():
        own = _labels(alike[0]) & genotype.choices.keys()
        if own:  # else inside a candidate that was not chosen
            cells[label] = _read(alike, genotype.choices)
            rest = {other: choice for other, choice in rest.items() if other not in own}
    iso, canonical = (
        _digest([genotype.space, description.options, rest, {label: form(cell) for label, cell in cells.items()}])
        for form in (CellGraph.iso, CellGraph.canonical)
    )
    return Canon(iso, canonical, cells)


InEdges = dict[int, dict[int, Decided]]
"""The decisions of a cell on the edges to each state, by source."""


def _edges(cell: Cell | Chain) -> InEdges:
    if isinstance(cell, Chain):
        return {state: {state - 1: step} for state, step in enumerate(cell, 1) if isinstance(step, Decided)}
    return {
        state: {int(source): edge for source, edge in node.named_children() if isinstance(edge, Decided)}
        for state, node in enumerate(cell.nodes, cell.inputs)
    }


def _labels(cell: Cell | Chain) -> set[str]:
    """The labels of the decisions of a cell itself, not of those inside its candidates."""
    nodes = {node.label for node in cell.nodes if isinstance(node, Node)} if isinstance(cell, Cell) else set()
    return nodes | {edge.label for edges in _edges(cell).values() for edge in edges.values()}


def _read(alike: Sequence[Cell | Chain], choices: Mapping[str, Choice]) -> CellGraph:
    """The cell that choices make of all modules of one label."""
    cell, everywhere = alike[0], [_edges(cell) for cell in alike]

    def looks(state: int, source: int, name: str) -> tuple[str, ...]:
        """What a candidate is at each of the places that share an edge, without its weights."""
        return tuple(repr(getattr(edges[state][source], name)) for edges in everywhere)

    variants: dict[str, dict[tuple[str, ...], None]] = defaultdict(dict)  # a name may be another module elsewhere
    for state, edges in everywhere[0].items():
        for source, edge in edges.items():
            for name, _ in edge.named_children():
                variants[name].setdefault(looks(state, source, name))
    nodes = []
    for state, edges in everywhere[0].items():
        in_edges = []
        for source, edge in sorted(edges.items()):
            if edge.label not in choices:
                continue  # the node does not keep this edge
            name = str(choices[edge.label])
            same = all(is_identity(getattr(others[state][source], name)) for others in everywhere)
            mark = "'" * list(variants[name]).index(looks(state, source, name))
            effect: Effect = "zero" if name == NONE else "identity" if same else "operation"
            in_edges.append(Edge(source, name + mark, effect))
        nodes.append(tuple(in_edges))
    if isinstance(cell, Cell):
        states = range(cell.inputs, cell.inputs + len(nodes))
        return CellGraph(cell.inputs, tuple(nodes), tuple(states)[-1:] if cell.output == "last" else tuple(states))
    if cell.residual:
        nodes.append((Edge(0, "", "identity"), Edge(len(nodes), "", "identity")))
    return CellGraph(1, tuple(nodes), (len(nodes),))


def is_identity(module: nn.Module) -> bool:
    """Whether a module returns its input, by its class."""
    return isinstance(module, nn.Identity) or (isinstance(module, nn.Sequential) and all(map(is_identity, module)))


def _term(source: str, edge: Edge) -> str:
    if edge.effect == "zero" or source == "#":
        return "#"
    return source if edge.effect == "identity" else f"({source})@{edge.operation}"


def _digest(data: object) -> str:
    """16 hexadecimal digits that stand for plain data; the order of keys does not count."""
    return hashlib.blake2b(json.dumps(data, sort_keys=True).encode(), digest_size=8).hexdigest()
