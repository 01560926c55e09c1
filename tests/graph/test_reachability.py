"""What pictures connect is what networks connect: drawn graphs against networks whose tensors are perturbed.

The oracle does not use `nas.graph.network_graph`. It runs a derived network once, and then once for each drawn module,
with noise on the output of this module and the outputs of all others held. The modules whose inputs change are its
targets.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import networkx as nx
import pytest
import torch
from torch import Tensor, nn

from nas.derive.random import choose_randomly
from nas.genotype.decision import NONE
from nas.genotype.file import Genotype
from nas.graph.network_graph import Cells, Graph, build_graph
from nas.space.cell import Cell, Chain
from nas.space.chooser import Chooser
from nas.space.definition import Description, find_space, search_space
from nas.space.mixed import Decided, Node
from nas.space.primitives import Zero

Key = tuple[str, str]
"""What a drawn node and a module have in common: a kind and a label; parts of an opened cell come with its place."""
Place = tuple[Key, int]
"""A call of a module: the how-manyth of its key."""


# --- the oracle ---


class Probe:
    """A network of which some modules are boxes, whose outputs are held."""

    def __init__(self, network: nn.Module, boxes: dict[nn.Module, Key], opened: dict[nn.Module, Key]) -> None:
        self.network, self.boxes, self.opened = network, boxes, opened
        self.known: dict[Any, Any] = {}
        """By place, what it received or computed in the first run."""
        self.order: list[Place] = []
        self.inside = False
        """Whether a box computes its output: what is in it is no place."""
        self.noisy: Place | None = None
        self.changed: set[Place] = set()
        self.counts: dict[Key, int] = defaultdict(int)
        self.generator = torch.Generator().manual_seed(0)
        for module, key in boxes.items():
            module.forward = self._box(key, module.forward)
        for module, key in opened.items():
            module.forward = self._open(key, module, module.forward)

    def edges(self, *inputs: Tensor) -> set[tuple[Place, Place]]:
        """Which place feeds which, without another place between them."""
        names = [(("input", str(i)), 0) for i in range(len(inputs))]
        self._run(inputs)
        found = set()
        for place in [*names, *self.order]:
            self.noisy, self.changed = place, set()
            self._run([self._noise(x) if name == place else x for name, x in zip(names, inputs, strict=True)])
            found |= {(place, other) for other in self.changed if other != place}
        return found

    def _run(self, inputs: Any) -> None:
        self.counts.clear()
        with torch.no_grad():
            self._seen((("output", ""), 0), self.network(*inputs))

    def _place(self, key: Key) -> Place:
        self.counts[key] += 1
        return key, self.counts[key] - 1

    def _seen(self, place: Place, item: Any) -> None:
        """Compare with the first run."""
        tensors = list(flat(item))
        before = self.known.setdefault((place, "seen"), tensors)
        if any(not torch.equal(a, b) for a, b in zip(before, tensors, strict=True)):
            self.changed.add(place)

    def _held(self, place: Place, compute: Callable[[], Any]) -> Any:
        """The output of the first run, with noise if it is this place's turn."""
        if (place, "made") not in self.known:
            self.known[place, "made"] = compute()
            self.order.append(place)
        made = self.known[place, "made"]
        return self._noise(made) if self.noisy == place else made

    def _noise(self, item: Any, share: float = 1.0) -> Any:
        """Noise, and a share of the item."""
        if isinstance(item, Tensor):
            return share * item + torch.randn(item.shape, generator=self.generator, dtype=item.dtype)
        made = [self._noise(each, share) for each in item]
        return type(item)(*made) if hasattr(item, "_fields") else type(item)(made)

    def _box(self, key: Key, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if self.inside:
                return forward(*args, **kwargs)
            place = self._place(key)
            self._seen(place, (args, kwargs))
            self.inside = True
            try:  # noise from the start, so that nothing saturates
                return self._held(place, lambda: self._noise(forward(*args, **kwargs), 0.0))
            finally:
                self.inside = False

        return run

    def _open(self, key: Key, module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        """A cell, whose inputs, nodes and output are places too."""

        def run(*args: Any) -> Any:
            (kind, label), number = self._place(key)

            def part(name: str) -> Place:
                return (f"{kind} {label} {number}", name), 0

            def state(name: str, compute: Callable[..., Any]) -> Callable[..., Any]:
                def summed(*args: Any) -> Any:
                    result = compute(*args)
                    self._seen(part(name), result)
                    return self._held(part(name), lambda: result)

                return summed

            inputs = []
            for i, each in enumerate(args):
                self._seen(part(f"input {i}"), each)
                inputs.append(self._held(part(f"input {i}"), lambda each=each: each))
            nodes = list(module.nodes) if isinstance(module, Cell) else []
            for i, node in enumerate(nodes, len(args)):
                node.forward = state(str(i), type(node).forward.__get__(node))
            result = forward(*inputs)
            self._seen(part("concat"), result)
            return self._held(part("concat"), lambda: result)

        return run


def flat(item: Any) -> Iterator[Tensor]:
    if isinstance(item, Tensor):
        yield item
    elif isinstance(item, tuple | list | dict):
        for each in item.values() if isinstance(item, dict) else item:
            yield from flat(each)


# --- which drawn node is which call ---


Copies = list[tuple[tuple[int, ...], Place]]
"""What a drawn node stands for: which of several copies, and the call."""


class Visit(NamedTuple):
    node: str
    repeats: tuple[int, ...]
    """Which of several copies, for each group around the node and the node itself."""
    key: Key
    """Of the node, or of the cell around it."""
    part: str
    """What it is in an opened cell."""


def visits(drawn: Graph, group: str = "", repeats: tuple[int, ...] = (), opened: str = "") -> Iterator[Visit]:
    """Nodes in the order of the drawing, repeated ones several times; an opened cell begins with itself."""
    for name, node in drawn.nodes(data=True):
        if node["group"] != group or name.startswith("cell "):
            continue
        for copy in range(node["multiplicity"]):
            here = (*repeats, copy)
            if node["kind"] == "group":
                if node["cell"]:
                    yield Visit(name, here, ("label", node["cell"]), "cell")
                yield from visits(drawn, name, here, node["cell"] or opened)
            elif opened and not node["decision"]:
                yield Visit(name, here, ("label", opened), "concat" if node["label"] == "+" else node["label"])
            elif node["decision"] or node["cell"]:
                yield Visit(name, here, ("label", node["decision"] or node["cell"]), "")
            elif node["kind"] == "module":
                yield Visit(name, here, ("module", node["label"]), "")


def places(drawn: Graph, order: list[Place]) -> dict[str, Copies]:
    """The calls that each drawn node stands for; every call must be drawn."""
    waiting: dict[Key, deque[Place]] = defaultdict(deque)
    for key, number in order:
        waiting[key].append((key, number))
    found: dict[str, Copies] = defaultdict(list)
    cell: dict[Key, int] = defaultdict(lambda: -1)
    for visit in visits(drawn):
        if visit.part == "cell":
            cell[visit.key] += 1
            continue
        place = visit.key
        if visit.part:
            kind, label = visit.key
            place = (f"{kind} {label} {cell[visit.key]}", visit.part)
        if not drawn.degree(visit.node) and not waiting[place]:
            continue  # nothing calls it, and the picture says so
        assert waiting[place], f"'{visit.node}' is drawn, but not called once more"
        found[visit.node].append((visit.repeats, waiting[place].popleft()))
    left = [place for queue in waiting.values() for place in queue]
    inputs = [name for name, node in drawn.nodes(data=True) if node["kind"] == "input" and name.startswith("<")]
    found.update({name: [((0,), (("input", str(i)), 0))] for i, name in enumerate(inputs)})
    found["<output>"] = [((0,), (("output", ""), 0))]
    assert [key for key, _ in left if not key[1].startswith(("input ", "concat"))] == [], "called, but not drawn"
    return found


def inside_panels(drawn: Graph, labels: set[str]) -> dict[str, Copies]:
    """The nodes of the cells that are shown beside the network, as parts of the first cell of their label."""
    found = {}
    for name, node in drawn.nodes(data=True):
        title = str(drawn.nodes[node["group"]]["label"]) if node["group"].startswith("cell ") else ""
        if title in labels and node["kind"] != "group":
            part = node["label"] if node["kind"] != "output" and node["label"] != "+" else "concat"
            place = (f"label {title}", "input 0" if part == "input" else part)
            key = ("label", node["decision"]) if node["decision"] else (f"{place[0]} 0", place[1])
            found[name] = [((0,), (key, 0))]
    return found


def check(description: Description, genotype: Genotype, cells: Cells, *inputs: Tensor) -> None:
    """Whether a picture connects what the network connects; of one with cells beside, the inside of these."""
    drawn = build_graph(description, genotype, cells)
    network = description.space.derived(genotype).double().eval()
    shown = {node["label"] for _, node in drawn.nodes(data=True) if node["kind"] == "module"}
    boxes: dict[nn.Module, Key] = {}
    opened: dict[nn.Module, Key] = {}
    nodes = [node for cell in network.modules() if isinstance(cell, Cell) for node in cell.nodes]
    unconnected = {edge for node in nodes for edge in node.children() if NONE in dict(edge.named_children())}
    for path, module in network.named_modules():
        inside = any(isinstance(inner, Decided) for inner in module.modules() if inner is not module)
        if isinstance(module, Cell | Chain):
            (boxes if cells == "closed" else opened)[module] = ("label", module.label)
        elif isinstance(module, Decided):
            if not inside and not isinstance(module, Node) and module not in unconnected:
                boxes[module] = ("label", module.label)
        elif not inside:
            *_, before, last = ["", *path.split(".")]
            names = {last, f"{before}.{last}"} | ({type(module).__name__} if last.isdigit() else set())
            if label := sorted(names & shown, key=len):
                boxes[module] = ("module", label[-1])
    probe = Probe(network, boxes, opened)
    traced = nx.DiGraph(probe.edges(*inputs))
    traced.add_nodes_from(probe.order)
    reached = {place: nx.descendants(traced, place) if place in traced else set() for place in [*traced]}
    labels = {label for _, label in opened.values()}
    meant = inside_panels(drawn, labels) if cells == "beside" else places(drawn, probe.order)
    for source, copies in meant.items():
        below = nx.descendants(drawn, source)
        for target, others in meant.items():
            around = common(drawn, source, target)
            if target == source or copies == others or (cells == "beside" and not around):
                continue

            def reaches(starts: Copies, ends: Copies) -> bool:
                return any(
                    place in reached.get(start, ())
                    for repeats, start in starts
                    for more, place in ends
                    if repeats[: len(around)] == more[: len(around)]  # noqa: B023
                )

            truth = reaches(copies, others)
            assert (target in below) == truth, f"{source} to {target}: drawn {target in below}"
            # a box that stands for several in a row: what feeds one feeds the first, what one feeds the last does
            last, first = drawn.nodes[source]["multiplicity"] - 1, 0
            assert truth == reaches([copy for copy in copies if copy[0][-1] == last], others), f"{source} to {target}"
            assert truth == reaches(copies, [copy for copy in others if copy[0][-1] == first]), f"{source} to {target}"


def common(drawn: Graph, a: str, b: str) -> list[str]:
    """The groups around both nodes."""

    def around(name: str) -> list[str]:
        group = drawn.nodes[name]["group"]
        return [*around(group), group] if group else []

    return [x for x, y in zip(around(a), around(b), strict=False) if x == y]


# --- small spaces ---


def linear() -> nn.Module:
    return nn.Linear(4, 4)


OPERATIONS: dict[str, Callable[[], nn.Module]] = {"none": Zero, "linear": linear, "skip": nn.Identity}


@search_space("reach-node")
def node_outside(choose: Chooser, /, *, keep: int = 2) -> nn.Module:
    """A node outside of cells that chooses among what came before, and one that is summed by hand."""

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.steps = nn.ModuleList(choose(f"step/{i}", OPERATIONS) for i in range(3))
            edges = {i: (lambda i=i: choose(f"edge/{i}", OPERATIONS)) if i % 2 else linear for i in range(4)}
            self.node = choose.inputs("node", edges, keep)
            self.last = choose("last", OPERATIONS)

        def forward(self, x: Tensor) -> Tensor:
            states = [x]
            for step in self.steps:
                states.append(step(states[-1]))
            return self.last(self.node(states)) + states[1]

    return Network()


@search_space("reach-nested")
def nested_cells(choose: Chooser, /) -> nn.Module:
    """Cells in candidates, rows on the edges of cells, candidates in candidates."""

    def inner() -> nn.Module:
        return Cell(choose, "inner", OPERATIONS, nodes=2, inputs=1, keep=1, output="last")

    def two() -> nn.Module:
        second = choose("second", {"linear": linear, "cell": inner})
        return nn.Sequential(choose("first", OPERATIONS), nn.Tanh(), second)

    def row() -> nn.Module:
        return Chain(choose, "row", OPERATIONS, length=2, residual=True)

    edge = {"linear": linear, "row": row}
    return nn.Sequential(
        choose("outer", {"cell": inner, "two": two, "skip": nn.Identity}),
        Cell(choose, "dag", edge, nodes=2, inputs=1, keep=1, output="last"),
        inner(),
    )


class Block(nn.Module):
    """A residual block whose body is a decision."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.norm = body, nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(self.norm(x))


@search_space("reach-depth")
def depths(choose: Chooser, /) -> nn.Module:
    """Depths with decisions in their blocks, with equal ones, and with none; a width."""
    width = choose.width("width", (2, 6))
    return nn.Sequential(
        choose.depth("deep", (0, 1, 2, 4), lambda i: Block(choose(f"block/{i}", OPERATIONS))),
        nn.Linear(4, width.channels),
        width,
        nn.Linear(width.channels, 4),
        choose.depth("equal", (1, 3), lambda i: nn.Sequential(choose("same", OPERATIONS), nn.Tanh())),
        choose.depth("plain", (0, 2), lambda i: linear()),
    )


class Gate(nn.Module):
    """A decision about one input, gated by another."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor, *, gate: Tensor) -> Tensor:
        return self.body(x) * gate


@search_space("reach-two")
def two_inputs(choose: Chooser, /) -> nn.Module:
    """A network of two inputs and two outputs, of which cells see one or both, in either order."""

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode = choose("encode", OPERATIONS)
            self.first = Cell(choose, "first", OPERATIONS, nodes=2)
            self.second = Cell(choose, "second", OPERATIONS, nodes=1, keep=1)
            self.shared = choose("shared", OPERATIONS)
            self.gates = choose.depth("gates", (0, 1, 2), lambda i: Gate(choose(f"gate/{i}", OPERATIONS)))
            self.head = choose("head", {"linear": linear, "skip": nn.Identity})

        def forward(self, left: Tensor, right: Tensor) -> dict[str, Any]:
            states = self.first(self.encode(left), right)[:, :4]
            mixed = self.gates(self.second(right, states), gate=left)
            return {"a": self.head(mixed), "b": (self.shared(left), self.shared(mixed * right))}

    return Network()


@search_space("reach-dead")
def dead_nodes(choose: Chooser, /) -> nn.Module:
    """Cells whose output is their last node, with nodes that nothing uses."""
    cell = lambda: Cell(choose, "cell", OPERATIONS, nodes=4, inputs=1, keep=None, output="last")  # noqa: E731 - one use
    pruned = Cell(choose, "pruned", OPERATIONS, nodes=4, inputs=1, keep=1, output="last")
    return nn.Sequential(cell(), nn.Tanh(), cell(), cell(), pruned)


@search_space("reach-branches")
def branches(choose: Chooser, /) -> nn.Module:
    """Lists of branches, concatenated and added; a part called twice; one that is never called; equal neighbours."""

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branches = nn.ModuleList(nn.Sequential(choose(f"branch/{i}", OPERATIONS), nn.Tanh()) for i in range(3))
            self.equal = nn.ModuleList(Block(choose("equal", OPERATIONS)) for _ in range(3))
            self.twice, self.forgotten = choose("twice", OPERATIONS), choose("forgotten", OPERATIONS)
            self.mix = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            first, second, third = self.branches
            a, b = first(x), second(x)
            joined = self.mix(torch.cat([a, third(b)], dim=1))
            x = self.equal[0](joined)
            x = self.equal[1](x)
            side = self.equal[2](x) + a
            return self.twice(self.twice(side) + b.mean(1, keepdim=True))

    return Network()


class Stack(nn.Module):
    """Equal neighbours with different inputs, wired in an order of the test's choice."""

    def __init__(self, choose: Chooser, reverse: bool) -> None:
        super().__init__()
        self.start = choose("start", OPERATIONS)
        self.side = choose("side", OPERATIONS)
        self.steps = nn.ModuleList(choose("step", OPERATIONS) for _ in range(3))
        wiring = [
            ("input", "start"), ("input", "side"), ("start", "steps.0"), ("steps.0", "steps.1"), ("side", "steps.1"),
            ("steps.1", "steps.2"), ("steps.2", "output"),
        ]  # fmt: skip
        self.wiring = tuple(wiring[::-1] if reverse else wiring)

    def forward(self, x: Tensor) -> Tensor:
        return self.steps[2](self.steps[1](self.steps[0](self.start(x)) + self.side(x)))


@search_space("reach-wired")
def wired(choose: Chooser, /, *, reverse: bool = False) -> nn.Module:
    return Stack(choose, reverse)


def image(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


VECTOR = (image(3, 4),)
SPACES: dict[str, tuple[dict[str, Any], tuple[Tensor, ...]]] = {  # by name: options, and inputs
    "tmics": ({"channels": 4}, (image(1, 5, 3, 16, 16),)),
    "darts": ({"channels": 2, "cells": 6, "nodes": 3}, (image(1, 3, 16, 16),)),
    "nas-bench-201": ({"channels": 2, "cells": 2}, (image(1, 3, 8, 8),)),
    "digits": ({"channels": 4}, (image(1, 1, 8, 8),)),
    "reach-node": ({}, VECTOR),
    "reach-nested": ({}, VECTOR),
    "reach-depth": ({}, VECTOR),
    "reach-two": ({}, VECTOR * 2),
    "reach-dead": ({}, VECTOR),
    "reach-branches": ({}, VECTOR),
    "reach-wired": ({}, VECTOR),
    "reach-wired backwards": ({"reverse": True}, VECTOR),
}


@pytest.mark.parametrize("cells", ["closed", "open", "beside"])
@pytest.mark.parametrize("count", [8, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", SPACES)
def test_what_is_drawn_is_what_is_computed(name: str, count: int, cells: Cells) -> None:
    options, inputs = SPACES[name]
    description = find_space(name.split()[0]).describe(**options)
    generator = torch.Generator().manual_seed(count)
    for _ in range(count):
        choices = choose_randomly(description.decisions, generator)
        genotype = Genotype(space=description.space.name, choices=choices, options=description.options)
        check(description, genotype, cells, *inputs)
