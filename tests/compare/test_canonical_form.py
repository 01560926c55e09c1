"""Two hashes: `iso` against the table of NAS-Bench-201, `canonical` against what cells compute."""

from __future__ import annotations

import csv
import gzip
import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from nas.compare.canonical_form import CellGraph, Edge, canon
from nas.genotype.decision import Choice
from nas.genotype.file import Genotype
from nas.space.cell import Cell, Chain
from nas.space.chooser import Chooser, Derived
from nas.space.definition import search_space
from nas.space.primitives import DARTS, NAS_BENCH_201, FactorizedReduce

pytestmark = pytest.mark.xdist_group("canonical form")  # whose fixtures take seconds
EFFECTS = {"none": "zero", "skip_connect": "identity"}
Group = dict[str, list[str]]


def edge(source: int, operation: str) -> Edge:
    return Edge(source, operation, EFFECTS.get(operation, "operation"))  # type: ignore[arg-type]


def cell(text: str) -> CellGraph:
    """A cell in the notation of NAS-Bench-201: `|op~0|+|op~0|op~1|`."""
    nodes = [[part.split("~") for part in node.strip("|").split("|")] for node in text.split("+")]
    return CellGraph(1, tuple(tuple(edge(int(s), op) for op, s in node) for node in nodes), (len(nodes),))


def groups(texts: Iterable[str], key: Callable[[str], str]) -> set[frozenset[str]]:
    found: Group = defaultdict(list)
    for text in texts:
        found[key(text)].append(text)
    return {frozenset(group) for group in found.values()}


ALL = [f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|" for a, b, c, d, e, f in itertools.product(NAS_BENCH_201, repeat=6)]


@pytest.fixture(scope="module")
def classes() -> Group:
    """All cells of NAS-Bench-201 by canonical hash."""
    found: Group = defaultdict(list)
    for text in ALL:
        found[cell(text).canonical()].append(text)
    return found


@pytest.fixture(scope="module")
def isos() -> dict[str, str]:
    """The hash of isomorphic cells, of all cells of NAS-Bench-201."""
    return {text: cell(text).iso() for text in ALL}


# --- iso ---


def test_iso_reproduces_the_table(isos: dict[str, str], data_root: Path) -> None:
    with gzip.open(data_root / "nas" / "nb201_table.csv.gz", "rt") as file:
        table = {row["arch"]: row["iso"] for row in csv.DictReader(file)}
    assert isos == table


def test_iso_has_as_many_classes_as_the_paper_says(isos: dict[str, str]) -> None:
    assert len(isos) == 15_625
    assert len(set(isos.values())) == 6_466


# --- canonical ---


def test_canonical_never_separates_isomorphic_cells(classes: Group, isos: dict[str, str]) -> None:
    isomorphic = groups(ALL, isos.__getitem__)
    canonical = {text: key for key, texts in classes.items() for text in texts}
    assert all(len({canonical[text] for text in group}) == 1 for group in isomorphic)
    assert len(classes) < len(isomorphic)


def test_canonical_against_rewriting(classes: Group) -> None:
    """Another way to the same classes: expressions as nested sorted tuples."""

    def expression(text: str) -> str:
        states: list[tuple[object, ...]] = [("x",)]
        for edges in cell(text).nodes:
            terms: list[object] = []
            for source, operation, _ in edges:
                if operation == "skip_connect":
                    terms += states[source]
                elif operation != "none" and states[source]:
                    terms.append((operation, states[source]))
            states.append(tuple(sorted(terms, key=repr)))
        return repr(states[-1])

    assert {frozenset(group) for group in classes.values()} == groups(ALL, expression)


class Shared:
    """The operations of NAS-Bench-201 with one set of weights each, wherever they stand."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        made = {name: make(3).double() for name, make in NAS_BENCH_201.items()}
        self.operations = {name: partial(made.__getitem__, name) for name in made}
        self.x = torch.randn(4, 3, 6, 6, dtype=torch.double)

    def __call__(self, text: str) -> Tensor:
        choices: dict[str, Choice] = {}
        for node, edges in enumerate(cell(text).nodes, 1):
            choices[f"cell/{node}"] = tuple(range(node))
            choices |= {f"cell/{node}<-{e.source}": e.operation for e in edges}
        choose = Derived(Genotype(space="", choices=choices))
        with torch.no_grad():
            result: Tensor = Cell(choose, "cell", self.operations, nodes=3, inputs=1, keep=None, output="last")(self.x)
        return result


@pytest.fixture(scope="module")
def shared() -> Shared:
    return Shared()


def test_cells_of_equal_canonical_hash_agree(classes: Group, isos: dict[str, str], shared: Shared) -> None:
    sample = random.Random(0)
    several = [sorted(group) for group in classes.values() if len({isos[text] for text in group}) > 1]
    for _ in range(150):
        a, b = sample.sample(sample.choice(several), 2)
        assert torch.allclose(shared(a), shared(b), rtol=1e-10, atol=1e-10), (a, b)


def test_cells_of_other_canonical_hash_differ(classes: Group, shared: Shared) -> None:
    sample = random.Random(0)
    without = [
        group[0] for group in classes.values() if "pool" not in group[0]
    ]  # poolings of sums are sums of poolings
    for _ in range(150):
        a, b = sample.sample(without, 2)
        assert not torch.allclose(shared(a), shared(b), rtol=1e-6, atol=1e-6), (a, b)


@pytest.mark.parametrize("name", {**DARTS, **NAS_BENCH_201})
@pytest.mark.parametrize("stride", [1, 2])
def test_an_operation_on_zero_is_zero(name: str, stride: int) -> None:
    """What `canonical` takes for granted, of every candidate of the field's usual sets."""
    operation = (DARTS | NAS_BENCH_201)[name](4, stride=stride)
    assert operation(torch.zeros(2, 4, 6, 6)).abs().max() == 0


@pytest.mark.parametrize(
    ("a", "b", "iso"),
    [
        # the same through another node, whose in-edges are more
        ("|none~0|+|conv~0|none~1|+|none~0|none~1|conv~2|", "|conv~0|+|none~0|none~1|+|none~0|conv~1|none~2|", False),
        # zero from a node of a single none, and from one of two
        ("|none~0|+|none~0|conv~1|+|conv~0|none~1|none~2|", "|none~0|+|none~0|none~1|+|conv~0|none~1|none~2|", True),
        ("|none~0|+|none~0|none~1|+|conv~0|none~1|conv~2|", "|none~0|+|none~0|none~1|+|conv~0|none~1|none~2|", False),
        # a dead node
        ("|conv~0|+|none~0|conv~1|+|conv~0|none~1|none~2|", "|none~0|+|none~0|none~1|+|conv~0|none~1|none~2|", True),
        # x + x is not x
        ("|skip_connect~0|+|none~0|none~1|+|skip_connect~0|skip_connect~1|none~2|",
         "|skip_connect~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|", None),
        # the order of operations
        ("|conv~0|+|none~0|pool~1|+|none~0|none~1|skip_connect~2|",
         "|pool~0|+|none~0|conv~1|+|none~0|none~1|skip_connect~2|", None),
    ],
)  # fmt: skip
def test_what_is_one_cell(a: str, b: str, iso: bool | None) -> None:
    """`iso`: whether both hashes agree, canonical alone (False), or none (None)."""
    assert (cell(a).iso() == cell(b).iso()) is bool(iso)
    assert (cell(a).canonical() == cell(b).canonical()) is (iso is not None)


@st.composite
def graphs(draw: st.DrawFn) -> CellGraph:
    """Cells of two inputs and three nodes with up to two in-edges each, concatenated or not."""
    nodes = []
    for state in range(2, 5):
        sources = draw(st.lists(st.integers(0, state - 1), min_size=1, max_size=2, unique=True))
        nodes.append(tuple(edge(s, draw(st.sampled_from(("none", "skip_connect", "f", "g")))) for s in sources))
    return CellGraph(2, tuple(nodes), draw(st.sampled_from([(4,), (2, 3, 4), (3, 4)])))


def compute(graph: CellGraph) -> tuple[float, ...]:
    """A cell of scalars, whose operations map zero to zero and are not linear."""
    operations = {"f": lambda x: x * abs(x) ** 0.3, "g": lambda x: 3 * x + x * x, "none": lambda x: 0.0 * x}
    states = [0.7310, 1.2277]
    for edges in graph.nodes:
        states.append(sum(operations.get(e.operation, lambda x: x)(states[e.source]) for e in edges))
    return tuple(round(states[state], 9) for state in graph.output)


def test_any_cell_of_equal_hash_computes_the_same() -> None:
    """And any other something else: no two expressions of these operations give one number."""
    by_hash: dict[str, tuple[float, ...]] = {}

    @given(graphs())
    def check(graph: CellGraph) -> None:
        assert by_hash.setdefault(graph.canonical(), compute(graph)) == compute(graph)

    check()
    assert len(set(by_hash.values())) == len(by_hash) > 5


# --- genotypes ---


class Twice(nn.Module):
    """A cell at full size, and one of the same label that halves."""

    def __init__(self, choose: Chooser, keep: int | None, halve: bool) -> None:
        super().__init__()
        self.cells = nn.ModuleList(
            Cell(choose, "cell", partial(candidates, halve), nodes=3, keep=keep, output="last") for _ in range(2)
        )
        self.row = Chain(choose, "row", candidates(False, 2, 3), length=3)
        self.head = choose(
            "head", {"a": nn.Identity, "row": lambda: Chain(choose, "inner", candidates(False, 2, 3), length=2)}
        )


def candidates(halve: bool, source: int, node: int) -> dict[str, Callable[[], nn.Module]]:
    reduces = halve and source < 2
    return {
        "none": nn.Identity,
        "skip": (lambda: FactorizedReduce(4, 4)) if reduces else nn.Identity,
        "conv": lambda: nn.Conv2d(4, 4, 1, stride=2 if reduces else 1),
    }


@search_space("toy-canon")
def toy(choose: Chooser, /, *, keep: int | None = None, halve: bool = False) -> nn.Module:
    return Twice(choose, keep, halve)


def genotype(halve: bool = False, **choices: Choice) -> Genotype:
    """All skips but for what is given; `row_1` stands for `row/1`, `c3_0` for `cell/3<-0`."""
    taken: dict[str, Choice] = {"head": "a", **{f"row/{i}": "skip" for i in (1, 2, 3)}}
    for node in (2, 3, 4):
        taken[f"cell/{node}"] = tuple(range(node))
        taken |= {f"cell/{node}<-{source}": "none" for source in range(node)}
    for name, choice in choices.items():
        taken[name.replace("_", "<-").replace("c", "cell/") if name[0] == "c" else name.replace("_", "/")] = choice
    return Genotype(space="toy-canon", options={"halve": halve}, choices=taken)


def test_genotypes_of_equal_cells() -> None:
    a = canon(genotype(c2_0="conv", c4_2="conv", c3_0="conv"))  # node 3 is dead
    b = canon(genotype(c3_0="conv", c4_3="conv"))
    assert a.canonical == b.canonical
    assert a.iso != b.iso
    assert a.cells["cell"].iso() == "#+#+#+(#+(0)@conv)@conv"
    assert canon(genotype(c2_1="conv", c4_2="conv")).canonical != b.canonical  # the other input
    assert a == canon(genotype(c2_0="conv", c4_2="conv", c3_0="conv"))


def test_a_skip_that_halves_is_no_identity() -> None:
    plain = [canon(genotype(c2_0="skip", c4_2=op, c4_0=other)) for op, other in (("skip", "none"), ("none", "skip"))]
    assert plain[0].canonical == plain[1].canonical
    halved = canon(genotype(True, c2_0="skip", c4_2="skip", c4_0="skip")).cells["cell"].iso()
    assert halved == "#+#+#+(0)@skip+(0)@skip"
    twice = canon(genotype(True, c2_0="conv", c4_2="conv")).cells["cell"].iso()
    assert twice == "#+#+#+(#+(0)@conv)@conv'"  # one name, but the first one halves


def test_chains() -> None:
    expected = canon(genotype(row_1="conv")).canonical
    assert canon(genotype(row_3="conv")).canonical == expected
    assert canon(genotype(row_3="conv", row_1="conv")).canonical != expected
    assert canon(genotype(row_3="none", row_1="conv")).canonical == canon(genotype(row_1="none")).canonical


def test_what_lies_outside_cells_counts_as_it_is() -> None:
    one, other = (canon(genotype(head="row", inner_1=op, inner_2="skip")) for op in ("conv", "skip"))
    assert len({one.iso, other.iso, canon(genotype()).iso}) == 3
    assert set(one.cells) == {"cell", "row", "inner"}
    assert set(canon(genotype()).cells) == {"cell", "row"}
    assert canon(genotype(True)).canonical != canon(genotype()).canonical


@pytest.mark.parametrize("name", ["tmics-light", "tmics-heavy"])
def test_shipped_genotypes(name: str) -> None:
    found = canon(Genotype.load(name))
    cell_text = found.cells["cell"].iso()
    assert cell_text.endswith("+0")  # the residual
    assert cell_text.count("@") == 4
    assert found.iso != canon(Genotype.load({"tmics-light": "tmics-heavy"}.get(name, "tmics-light"))).iso
