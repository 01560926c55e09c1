"""The graph of a space or genotype: flows, cells, decisions, multiplicities, and what a `wiring` may say."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any, Literal

import networkx as nx
import pytest
import torch
from torch import nn

from nas.derive.random import choose_randomly
from nas.errors import NASError, SpaceError
from nas.genotype.decision import Choice
from nas.genotype.file import Genotype
from nas.graph.network_graph import Graph, build_graph
from nas.space.cell import Cell, Chain
from nas.space.chooser import Chooser
from nas.space.definition import Description, SearchSpace, search_space
from nas.space.operations import OperationSet

OPERATIONS = OperationSet({n: lambda c: nn.Identity() for n in ("conv_3x3", "conv_5x5", "none")}).register("graph-test")
TWO: dict[str, Callable[[], nn.Module]] = {"a": nn.Identity, "b": nn.Identity}


def described(build: Callable[..., nn.Module]) -> Description:
    return SearchSpace("toy", build).describe()


def edges(drawn: Graph) -> set[tuple[str, str]]:
    """Edges by the labels of their ends."""
    label = dict(drawn.nodes(data="label"))
    return {(label[a], label[b]) for a, b in drawn.edges}


def flow(drawn: Graph, group: str = "") -> list[str]:
    """The labels of a group's nodes that stand in one row, in order."""
    members = [name for name, n in drawn.nodes(data=True) if n["group"] == group and n["kind"] != "group"]
    order = list(nx.topological_sort(drawn.subgraph(members)))
    assert all(drawn.has_edge(a, b) for a, b in itertools.pairwise(order))
    return [drawn.nodes[name]["label"] for name in order]


class Wired(nn.Module):
    def __init__(self, wiring: Sequence[tuple[str, str]], **children: nn.Module | None) -> None:
        super().__init__()
        self.wiring = wiring
        for name, child in children.items():
            setattr(self, name, child)


TWO_ROUTES = (
    ("frames", "start"),
    ("start", "upper"),
    ("upper", "more"),
    ("start", "lower"),
    ("more", "sum"),
    ("lower", "sum"),
    ("sum", "output"),
)


def test_wiring_is_the_flow() -> None:
    def build(choose: Chooser, /) -> nn.Module:
        parts = {name: nn.Identity() for name in ("upper", "more", "lower", "sum")}
        return Wired(TWO_ROUTES, start=choose("start", TWO), **parts)

    drawn = build_graph(described(build))
    assert edges(drawn) == set(TWO_ROUTES)
    assert drawn.nodes["start"]["kind"] == "decision"
    assert drawn.nodes["upper"]["kind"] == "module"


def test_edges_pass_through_absent_children() -> None:
    def build(choose: Chooser, /) -> nn.Module:
        return Wired(TWO_ROUTES, start=choose("start", TWO), upper=None, lower=nn.Identity(), sum=nn.Identity())

    assert edges(build_graph(described(build))) == {
        ("frames", "start"),
        ("start", "sum"),
        ("start", "lower"),
        ("lower", "sum"),
        ("sum", "output"),
    }


def test_wiring_within_wiring_is_a_group_with_its_own_ends() -> None:
    def build(choose: Chooser, /) -> nn.Module:
        wiring = (("input", "x"), ("x", "output"), ("input", "output"))
        inner = Wired(wiring, x=choose("x", TWO))
        return Wired((("input", "inner"), ("inner", "last"), ("last", "output")), inner=inner, last=nn.Identity())

    drawn = build_graph(described(build))
    assert edges(drawn) == {("input", "x"), ("x", "last"), ("input", "last"), ("last", "output")}
    assert drawn.nodes["inner"]["kind"] == "group"
    assert drawn.nodes["inner/x"]["group"] == "inner"
    assert drawn.degree("inner") == 0


def test_wiring_must_name_every_decision() -> None:
    def build(choose: Chooser, /) -> nn.Module:
        return Wired((("input", "x"), ("x", "output")), x=nn.Identity(), forgotten=choose("d", TWO))

    with pytest.raises(SpaceError, match=r"Wired .*'forgotten'.* got x"):
        build_graph(described(build))


def test_wiring_must_not_have_a_cycle() -> None:
    def build(choose: Chooser, /) -> nn.Module:
        wiring = (("input", "x"), ("x", "y"), ("y", "x"), ("y", "output"))
        return Wired(wiring, x=choose("d", TWO), y=nn.Identity())

    with pytest.raises(SpaceError, match=r"Wired .*cycle"):
        build_graph(described(build))


def test_equal_neighbours_are_one_with_the_wires_of_all() -> None:
    """Five cells, each on the outputs of the two before: A A B A A."""

    def build(choose: Chooser, /) -> nn.Module:
        names = ["start", *(f"rows.{i}" for i in range(5))]
        steps = [*itertools.pairwise(names), *zip(names, names[2:], strict=False)]
        rows = nn.ModuleList(Chain(choose, label, OPERATIONS.bind(1), length=1) for label in "aabaa")
        return Wired((("input", "start"), *steps, ("rows.4", "output")), start=nn.Identity(), rows=rows)

    drawn = build_graph(described(build), cells="closed")
    found = [(n["label"], n["multiplicity"]) for _, n in drawn.nodes(data=True)]
    assert found == [("input", 1), ("start", 1), ("a", 2), ("b", 1), ("a", 2), ("output", 1)]
    name = {node: number for number, node in enumerate(drawn)}
    assert {(name[a], name[b]) for a, b in drawn.edges} == {(0, 1), (1, 2), (2, 3), (2, 4), (3, 4), (4, 5)}


@pytest.mark.parametrize(
    "end",
    [
        [("x", "p.1"), ("p.1", "output")],  # another way between them
        [("x", "output"), ("p.1", "output")],  # the first also feeds another part
    ],
)
def test_equal_neighbours_stay_two_if_the_first_feeds_another_part(end: list[tuple[str, str]]) -> None:
    wiring = [("input", "p.0"), ("p.0", "p.1"), ("p.0", "x"), *end]

    def build(choose: Chooser, /) -> nn.Module:
        return Wired(wiring, p=nn.ModuleList([nn.Identity(), nn.Identity()]), x=choose("x", TWO))

    drawn = build_graph(described(build))
    assert edges(drawn) == set(wiring)
    assert nx.is_directed_acyclic_graph(drawn)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_equal_neighbours_with_different_inputs_stay_two(order: tuple[int, ...]) -> None:
    def build(choose: Chooser, /) -> nn.Module:
        into = [("p.0", "p.1"), ("x", "p.1"), ("input", "p.0")]
        wiring = (("input", "x"), *(into[i] for i in order), ("p.1", "p.2"), ("p.2", "output"))
        return Wired(wiring, p=nn.ModuleList(nn.Identity() for _ in range(3)), x=choose("x", TWO))

    assert edges(build_graph(described(build))) == {
        ("input", "x"), ("input", "p.0"), ("p.0", "p"), ("x", "p"), ("p", "output"),
    }  # fmt: skip


class Parts(nn.Module):
    """Children, and what to do with them."""

    def __init__(self, run: Callable[..., Any], **children: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, child in children.items():
            setattr(self, name, child)

    def forward(self, x: torch.Tensor) -> Any:
        return self.run(self, x)


def test_the_flow_is_what_forward_computes() -> None:
    """A skip, a part called twice, operations on shapes, in place and in lists, and a part that nothing calls."""

    def run(self: Any, x: torch.Tensor) -> Any:
        y = self.a(x).view(x.shape[0], -1)
        y.add_(self.b(torch.zeros_like(x)))
        parts = {"y": [y, x.new_zeros(x.size())]}
        z = self.twice(torch.cat(parts["y"], 1) * self.scale)
        return {"out": self.twice(z - x).mT + x}

    def build(choose: Chooser, /) -> nn.Module:
        names = ("a", "b", "twice", "never")
        module = Parts(run, **{name: choose(name, TWO) for name in names})
        module.scale = nn.Parameter(torch.ones(1))
        return module

    drawn = build_graph(described(build))
    assert set(drawn.edges) == {
        ("<input>", "a"), ("a", "twice"), ("b", "twice"), ("twice", "twice#2"), ("<input>", "twice#2"),
        ("twice#2", "<output>"), ("<input>", "<output>"),
    }  # fmt: skip
    assert {name for name, unused in drawn.nodes(data="unused") if unused} == {"never"}


def test_a_forward_that_needs_data_shows_a_chain() -> None:
    def run(self: Any, x: torch.Tensor) -> Any:
        return self.b(self.a(x) if x.sum() > 0 else x)

    drawn = build_graph(described(lambda choose, /: Parts(run, a=choose("a", TWO), b=choose("b", TWO))))
    assert set(drawn.edges) == {("<input>", "a"), ("a", "b"), ("b", "<output>")}


def test_drawing_leaves_the_description_as_it_was() -> None:
    description = described(lambda choose, /: nn.Sequential(choose("a", TWO), nn.ReLU()))
    build_graph(description)
    assert [name for module in description.network.modules() for name in vars(module) if name == "forward"] == []


def test_parts_of_lists_have_their_names() -> None:
    def run(self: Any, x: torch.Tensor) -> Any:
        return self.extra["left"](sum(branch(x) for branch in self.branches))

    def build(choose: Chooser, /) -> nn.Module:
        branches = [nn.Sequential(choose(f"op_{i}", TWO), nn.ReLU()) for i in range(2)]
        row = nn.Sequential(nn.Tanh(), *(Chain(choose, "row", OPERATIONS.bind(1), length=1) for _ in range(2)))
        extra = nn.ModuleDict({"left": nn.Sequential(choose("left", TWO), nn.ReLU())})
        return Parts(run, branches=nn.ModuleList([*branches, row]), extra=extra)

    drawn = build_graph(described(build), cells="closed")
    groups = {name: node["label"] for name, node in drawn.nodes(data=True) if node["kind"] == "group"}
    assert groups == {"branches.0": "branches.0", "branches.1": "branches.1", "branches.2": "branches.2"}
    assert drawn.nodes["branches.2/1"]["label"] == "row"
    assert drawn.nodes["branches.2/1"]["multiplicity"] == 2


def test_repeated_groups_are_called_by_their_list_or_class() -> None:
    def block(choose: Chooser) -> nn.Module:
        return Parts(lambda self, x: self.b(self.a(x)) + x, a=choose("a", TWO), b=choose("b", TWO))

    def run(self: Any, x: torch.Tensor) -> Any:
        for each in self.blocks:
            x = each(x)
        return self.rest(x)

    def build(choose: Chooser, /) -> nn.Module:
        blocks = nn.ModuleList(block(choose) for _ in range(3))
        return Parts(run, blocks=blocks, rest=nn.Sequential(block(choose), block(choose)))

    drawn = build_graph(described(build))
    groups = [(node["label"], node["multiplicity"]) for _, node in drawn.nodes(data=True) if node["kind"] == "group"]
    assert groups == [("blocks", 3), ("Parts", 2)]


def test_inputs_have_the_names_of_the_arguments_and_their_own_ways() -> None:
    class Pair(nn.Module):
        def __init__(self, choose: Chooser) -> None:
            super().__init__()
            self.cell = Cell(choose, "dag", OPERATIONS.bind(1), nodes=1)

        def forward(self, left: torch.Tensor, right: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
            return self.cell(right * scale, left)

    drawn = build_graph(described(lambda choose, /: Pair(choose)), cells="open")
    into = {(drawn.nodes[a]["label"], drawn.nodes[b]["label"]) for a, b in drawn.edges if a.startswith("<")}
    assert into == {("right", "input 0"), ("left", "input 1")}


def test_wiring_may_name_one_of_several_inputs() -> None:
    class Pair(Wired):
        def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor: ...  # type: ignore[empty-body]

    def build(choose: Chooser, /) -> nn.Module:
        wiring = (("input.1", "x"), ("input.0", "y"), ("x", "y"), ("y", "output"))
        return Pair(wiring, x=choose("x", TWO), y=choose("y", TWO))

    assert edges(build_graph(described(build))) == {("right", "x"), ("left", "y"), ("x", "y"), ("y", "output")}


def test_what_nothing_uses_is_marked() -> None:
    description = described(lambda choose, /: Cell(choose, "dag", OPERATIONS.bind(1), nodes=3, keep=1, output="last"))
    nodes = {f"dag/{node}": (0,) for node in (2, 3, 4)}
    drawn = build_graph(description, {**nodes, **{f"dag/{node}<-0": "conv_3x3" for node in (2, 3, 4)}})
    unused = {name for name, unused in drawn.nodes(data="unused") if unused}
    assert unused == {"cell dag/1", "cell dag/2", "cell dag/3"}


def test_without_wiring_sequentials_show_all_and_modules_what_decides() -> None:
    class Plain(nn.Module):
        def __init__(self, choose: Chooser) -> None:
            super().__init__()
            self.hidden = nn.Identity()
            self.first = choose("first", TWO)
            self.rest = nn.Sequential(nn.ReLU(), choose("second", TWO), nn.Conv2d(1, 1, 1))

    assert flow(build_graph(described(lambda choose, /: Plain(choose)))) == [
        "input",
        "first",
        "ReLU",
        "second",
        "Conv2d",
        "output",
    ]


def test_repeated_neighbours_are_one_box_with_a_multiplicity() -> None:
    def build(choose: Chooser, /) -> nn.Module:
        labels = ("normal", "normal", "reduction", "normal", "normal", "normal")
        return nn.Sequential(*(Chain(choose, label, OPERATIONS.bind(1), length=2) for label in labels))

    drawn = build_graph(described(build))
    assert flow(drawn) == ["input", "normal", "reduction", "normal", "output"]
    cells = [(n["cell"], n["multiplicity"]) for _, n in drawn.nodes(data=True) if n["kind"] == "cell"]
    assert cells == [("normal", 2), ("reduction", 1), ("normal", 3)]
    assert flow(drawn, "cell normal") == ["input", "normal/1", "normal/2", "output"]


def test_a_row_with_residual_adds_its_input() -> None:
    def build(choose: Chooser, /) -> nn.Module:
        return Chain(choose, "row", OPERATIONS.bind(1), length=2, residual=True)

    drawn = build_graph(described(build), {"row/1": "conv_3x3", "row/2": "none"})
    inside = drawn.subgraph([n for n in drawn if drawn.nodes[n]["group"] == "cell row"])
    assert edges(inside) == {("input", "row/1"), ("row/1", "row/2"), ("row/2", "+"), ("input", "+"), ("+", "output")}
    assert drawn.nodes["cell row/1"]["kind"] == "operation"
    assert drawn.nodes["cell row/1"]["chosen"] == "conv_3x3"
    assert drawn.nodes["cell row/1"]["candidates"] == "conv_3x3, conv_5x5, none"


def dag(choose: Chooser, output: Any = "concat", keep: int | None = 2) -> nn.Module:
    return Cell(choose, "dag", OPERATIONS.bind(1), nodes=2, output=output, keep=keep)


def test_a_dag_cell_has_the_chosen_operations_on_its_edges() -> None:
    choices = {"dag/2": (0, 1), "dag/2<-0": "conv_3x3", "dag/2<-1": "conv_5x5"}
    choices |= {"dag/3": (0, 2), "dag/3<-0": "conv_5x5", "dag/3<-2": "conv_3x3"}
    drawn = build_graph(described(lambda choose, /: dag(choose)), choices)
    labels = {(a.split("/")[-1], b.split("/")[-1]): label for a, b, label in drawn.edges(data="label") if "cell" in a}
    assert labels == {
        ("0", "2"): "conv_3x3",
        ("1", "2"): "conv_5x5",
        ("0", "3"): "conv_5x5",
        ("2", "3"): "conv_3x3",
        ("2", "<output>"): "",
        ("3", "<output>"): "",
    }
    assert drawn.edges["cell dag/0", "cell dag/2"]["decision"] == "dag/2<-0"
    assert drawn.nodes["cell dag/<output>"]["label"] == "concat"


def test_none_is_no_edge() -> None:
    description = described(lambda choose, /: dag(choose, keep=None))
    choices = {label: "none" for label, d in description.decisions.items() if d.kind == "operation"}
    choices["dag/3<-2"] = "conv_3x3"
    drawn = build_graph(description, choices | {"dag/2": (0, 1), "dag/3": (0, 1, 2)})
    assert {a for a, b in drawn.edges if b == "cell dag/3"} == {"cell dag/2"}
    assert not drawn.pred["cell dag/2"]


def test_without_choices_a_dag_cell_has_every_edge() -> None:
    drawn = build_graph(described(lambda choose, /: dag(choose)))
    assert {a.rsplit("/", 1)[-1] for a in drawn.pred["cell dag/3"]} == {"0", "1", "2"}
    assert drawn.nodes["cell dag"]["caption"] == (
        "each edge one of conv_3x3, conv_5x5, none; each node keeps 2 of its in-edges"
    )


def deep(choose: Chooser, /) -> nn.Module:
    row = lambda: Chain(choose, "row", OPERATIONS.bind(1), length=1)  # noqa: E731 - a candidate
    edge = {"row": row, "skip": nn.Identity}
    return nn.Sequential(
        choose("outer", {"row": row, "plain": nn.Identity}), Cell(choose, "dag", edge, nodes=1, inputs=1, keep=1)
    )


def test_decisions_inside_candidates() -> None:
    drawn = build_graph(described(deep))
    assert drawn.nodes["0"]["kind"] == "group"
    assert {n["label"] for _, n in drawn.nodes(data=True) if n["group"] == "0"} == {"row", "plain"}
    assert {name for name in drawn if name.startswith("cell ") and "/" not in name} == {"cell row", "cell dag"}
    assert flow(drawn, "cell row") == ["input", "row/1", "output"]


def test_decisions_inside_the_operation_of_an_edge() -> None:
    def build(choose: Chooser, /) -> nn.Module:
        inner = lambda: nn.Sequential(nn.ReLU(), choose("inner", TWO))  # noqa: E731 - a candidate
        return Cell(choose, "dag", {"inner": inner, "skip": nn.Identity}, nodes=1, inputs=1, keep=1)

    description = described(build)
    assert flow(build_graph(description), "cell dag/1<-0: inner") == ["input", "ReLU", "inner", "output"]
    skipped = build_graph(description, {"dag/1": (0,), "dag/1<-0": "skip"})
    assert "cell dag/1<-0: inner" not in skipped


def test_what_was_not_chosen_is_not_shown() -> None:
    drawn = build_graph(described(deep), {"outer": "plain", "dag/1": (0,), "dag/1<-0": "skip"})
    assert {name for name, n in drawn.nodes(data=True) if n["kind"] == "group"} == {"cell dag"}
    assert drawn.nodes["0"]["chosen"] == "plain"
    assert drawn.graph["operations"] == "conv_3x3, conv_5x5, none, row, skip"  # of the space, not of the genotype


def test_candidates_that_share_a_module() -> None:
    shared = nn.ReLU()

    def build(choose: Chooser, /) -> nn.Module:
        inner = {"a": lambda: shared, "b": lambda: shared, "c": lambda: choose("inner", TWO)}
        edges = {0: lambda: shared, 1: lambda: shared}
        return nn.Sequential(choose("outer", inner), choose.inputs("node", edges))

    drawn = build_graph(described(build))
    inside = {group: [n["label"] for _, n in drawn.nodes(data=True) if n["group"] == group] for group in ("0", "1")}
    assert inside == {"0": ["a", "b", "inner"], "1": ["0", "1"]}


def test_widths_and_depths() -> None:
    def build(choose: Chooser, /) -> nn.Module:
        blocks = choose.depth("deep", (1, 3), lambda i: choose(f"block/{i}", TWO))
        return nn.Sequential(choose.width("wide", (4, 8)), choose.depth("plain", (1, 2), lambda i: nn.ReLU()), blocks)

    description = described(build)
    choices = {"wide": 8, "plain": 2, "deep": 1, "block/0": "a"}
    boxes = {n["label"]: n for _, n in build_graph(description, choices).nodes(data=True)}
    assert (boxes["wide"]["kind"], boxes["wide"]["chosen"], boxes["wide"]["candidates"]) == ("width", "8", "4, 8")
    assert (boxes["plain"]["kind"], boxes["plain"]["chosen"]) == ("depth", "2")
    assert boxes["deep"]["kind"] == "group"
    assert "block/0" in boxes
    assert "block/1" not in boxes
    assert {"block/0", "block/1", "block/2"} <= {label for _, label in build_graph(description).nodes(data="label")}


def test_nodes_outside_of_cells() -> None:
    def build(choose: Chooser, /) -> nn.Module:
        sources = {0: lambda: choose("from/0", TWO), 1: nn.ReLU}
        return nn.Sequential(choose.inputs("node", sources, keep=1))

    description = described(build)
    assert {n["label"] for _, n in build_graph(description).nodes(data=True) if n["group"]} == {"from/0", "1"}
    assert build_graph(description, {"node": (1,)}).nodes["0"]["chosen"] == "1"


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({}, "'outer'"),
        ({"outer": "plan"}, "'outer' 'plan' .*'plain'"),
        ({"outer": "plain", "dag/1": (3,), "dag/1<-0": "skip"}, r"'dag/1' .*\[3\]"),
        ({"outer": "plain", "row/1": "none", "dag/1": (0,), "dag/1<-0": "skip"}, "'row/1'"),
    ],
)
def test_choices_that_do_not_fit(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(NASError, match=message):
        build_graph(described(deep), choices)


def test_a_genotype_of_another_space() -> None:
    with pytest.raises(SpaceError, match=r"'toy', got 'other'"):
        build_graph(described(deep), Genotype(space="other", choices={}))


def test_everything_is_plain_data() -> None:
    description = described(deep)
    for choices in (None, choose_randomly(description.decisions, torch.Generator().manual_seed(0))):
        drawn = build_graph(description, choices)
        assert nx.is_directed_acyclic_graph(drawn)
        assert {type(v) for _, n in drawn.nodes(data=True) for v in n.values()} == {str, int}
        file = io.BytesIO()
        nx.write_graphml(drawn, file)
        file.seek(0)
        read = nx.read_graphml(file)
        assert dict(read.nodes(data=True)) == dict(drawn.nodes(data=True))
        assert [*read.edges(data=True)] == [*drawn.edges(data=True)]
        data = json.loads(json.dumps(nx.node_link_data(drawn, edges="edges")))
        assert nx.utils.graphs_equal(nx.node_link_graph(data, edges="edges"), drawn)


# --- cells, opened and closed ---


class Two(nn.Module):
    """A DAG cell on two inputs, and a row twice."""

    wiring = (("input", "stem"), ("stem", "cell"), ("input", "cell"), ("cell", "rows"), ("rows", "output"))

    def __init__(self, choose: Chooser, output: Literal["concat", "last"]) -> None:
        super().__init__()
        operations = {"none": nn.Identity, "a": nn.Identity, "b": nn.Identity}
        self.stem = nn.Identity()
        self.cell = Cell(choose, "dag", operations, nodes=2, keep=None, output=output)
        self.rows = nn.Sequential(*(Chain(choose, "row", operations, length=2, residual=True) for _ in range(2)))


@search_space("toy-opened")
def opened(choose: Chooser, /, *, output: Literal["concat", "last"] = "concat") -> nn.Module:
    return Two(choose, output)


CHOICES: dict[str, Choice] = {
    "dag/2": (0, 1), "dag/2<-0": "a", "dag/2<-1": "none", "dag/3": (0, 1, 2), "dag/3<-0": "none", "dag/3<-1": "b",
    "dag/3<-2": "a", "row/1": "a", "row/2": "b",
}  # fmt: skip


def test_opened_cells_stand_where_they_are() -> None:
    drawn = build_graph(opened.describe(), CHOICES, "open")
    assert [name for name, d in drawn.nodes(data=True) if d["kind"] == "cell"] == []
    wires = {(a.removeprefix("cell/"), b.removeprefix("cell/")) for a, b in drawn.edges}
    assert wires >= {
        ("stem", "0"), ("<input>", "1"),
        ("0", "2<-0"), ("2<-0", "2"), ("1", "3<-1"), ("3<-1", "3"), ("2", "3<-2"), ("3<-2", "3"),
        ("2", "concat"), ("3", "concat"),
    }  # fmt: skip
    assert not {name for name in drawn if "2<-1" in name or "3<-0" in name}  # none is no connection
    assert drawn.nodes["cell/2<-0"]["chosen"] == "a"
    assert drawn.nodes["cell/2<-0"]["kind"] == "operation"
    rows = [d for _, d in drawn.nodes(data=True) if d["kind"] == "group" and d["multiplicity"] == 2]
    assert len(rows) == 1
    last = build_graph(opened.describe(output="last"), CHOICES, "open")
    assert not [name for name in last if name.endswith("concat")]
    assert "cell/3" in last.pred[next(name for name in last if name.startswith("rows") and last.pred[name])]


def test_closed_cells_show_nothing_of_their_inside() -> None:
    beside, closed = (build_graph(opened.describe(), CHOICES, cells) for cells in ("beside", "closed"))
    assert set(closed) == {name for name in beside if not name.startswith("cell ")}
    assert {d["cell"] for _, d in closed.nodes(data=True)} == {"", "dag", "row"}
    assert closed.edges == beside.subgraph(closed).edges
