"""Two hashes that are equal for genotypes of one network: `iso` and `canonical`.

Both hash the expression of the output of each cell over its inputs. In this expression equal operations count as having
equal weights.

- `iso` is the isomorphism of NAS-Bench-201 (Dong and Yang, ICLR 2020, sec. 2.1). A skip is replaced by its source, and
  the terms of a node are sorted. The term `#` replaces a connection `none`, and any connection from a node whose only
  term is `#`. It divides the 15,625 cells of this benchmark into 6,466 classes.
- `canonical` merges more. It removes terms that are zero and nodes that do not affect the output. An operation on zero
  is zero, which holds for convolutions without bias, batch norms in training, and poolings. Brackets in sums do not
  count. Genotypes of one `iso` class have one `canonical` hash. Linear identities, such as the pooling of a sum, are
  not applied.

Cells of one hash may differ in their number of parameters: one may compute twice what the other computes once.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from torch import nn

from nas.genotype.decision import NONE, Choice
from nas.genotype.file import Genotype
from nas.space.cell import Cell, Chain
from nas.space.definition import Description, find_space
from nas.space.mixed import Decided, Node

Effect = Literal["operation", "identity", "zero"]


class Edge(NamedTuple):
    """A connection from an earlier state of a cell: states 0, 1, ... are its inputs, then follow its nodes."""

    source: int
    operation: str
    effect: Effect = "operation"


class CellGraph(NamedTuple):
    """What a cell computes: nodes that sum their in-edges, and the states of its output, in order."""

    inputs: int
    nodes: tuple[tuple[Edge, ...], ...]
    output: tuple[int, ...]

    def iso(self) -> str:
        """Return the expression as text, equal for isomorphic cells: inputs are numbers, operations `(SOURCE)@NAME`."""
        states = [str(number) for number in range(self.inputs)]
        for edges in self.nodes:
            states.append("+".join(sorted(_term(states[edge.source], edge) for edge in edges)))
        return ",".join(states[state] for state in self.output)

    def canonical(self) -> str:
        """Return the hash of the expression without zeros, identities and dead nodes."""
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
    """Return the hashes of a genotype that fits its space. Choices outside cells are hashed unchanged.

    Args:
        genotype: the genotype.
        description: its space, described with its options; built if None.

    Raises:
        UnknownNameError: the space or an option is unknown.
        ConfigError: an option has an invalid value.
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
        if own:  # else the cell is inside a candidate that was not chosen
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
    """The labels of the decisions of a cell, without those inside its candidates."""
    nodes = {node.label for node in cell.nodes if isinstance(node, Node)} if isinstance(cell, Cell) else set()
    return nodes | {edge.label for edges in _edges(cell).values() for edge in edges.values()}


def _read(alike: Sequence[Cell | Chain], choices: Mapping[str, Choice]) -> CellGraph:
    """The cell that choices derive from all modules of one label."""
    cell, everywhere = alike[0], [_edges(cell) for cell in alike]

    def structure(state: int, source: int, name: str) -> tuple[str, ...]:
        """The structure of a candidate, without weights, at each of the places that share an edge."""
        return tuple(repr(getattr(edges[state][source], name)) for edges in everywhere)

    variants: dict[str, dict[tuple[str, ...], None]] = defaultdict(dict)  # one name may stand for different modules
    for state, edges in everywhere[0].items():
        for source, edge in edges.items():
            for name, _ in edge.named_children():
                variants[name].setdefault(structure(state, source, name))
    nodes = []
    for state, edges in everywhere[0].items():
        in_edges = []
        for source, edge in sorted(edges.items()):
            if edge.label not in choices:
                continue  # the node does not keep this edge
            name = str(choices[edge.label])
            same = all(is_identity(getattr(others[state][source], name)) for others in everywhere)
            mark = "'" * list(variants[name]).index(structure(state, source, name))
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
    """Whether a module returns its input, judged by its class."""
    return isinstance(module, nn.Identity) or (isinstance(module, nn.Sequential) and all(map(is_identity, module)))


def _term(source: str, edge: Edge) -> str:
    if edge.effect == "zero" or source == "#":
        return "#"
    return source if edge.effect == "identity" else f"({source})@{edge.operation}"


def _digest(data: object) -> str:
    """A hash of plain data, 16 hexadecimal digits; the order of keys does not count."""
    return hashlib.blake2b(json.dumps(data, sort_keys=True).encode(), digest_size=8).hexdigest()
