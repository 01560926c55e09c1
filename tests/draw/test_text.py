"""The text tree, letter by letter."""

from __future__ import annotations

from nas.draw.dot import to_dot
from nas.draw.mermaid import to_mermaid
from nas.draw.picture import make_picture
from nas.draw.text import to_text
from nas.graph.network_graph import build_graph
from nas.space.definition import Description, find_space


def test_two_routes(restoration: Description) -> None:
    operations = ("residual_3x3", "dense_3x3", "spatial_attention", "dilated_3x3")
    choices = {f"row/{i}": name for i, name in enumerate(operations, 1)}
    assert to_text(build_graph(restoration, {"alignment": "tgm", "frequency": "gf2", **choices})) == (
        "toy-restoring\n"
        "├─ frames\n"
        "├─ alignment: tgm\n"
        "├─ frequency: gf2\n"
        "├─ streaks\n"
        "├─ stem ← frequency, streaks\n"
        "├─ dna\n"
        "│  ├─ cells ×4: cell row\n"
        "│  └─ head\n"
        "├─ cna\n"
        "│  ├─ cells ×4: cell row ← frequency\n"
        "│  └─ head\n"
        "├─ averaging ← dna/head, cna/head\n"
        "└─ output\n"
        "\n"
        "cell row\n"
        "├─ input\n"
        "├─ row/1: residual_3x3\n"
        "├─ row/2: dense_3x3\n"
        "├─ row/3: spatial_attention\n"
        "├─ row/4: dilated_3x3\n"
        "├─ + ← row/4, input\n"
        "└─ output\n"
    )


def test_dag_cells(classification: Description) -> None:
    decisions = classification.decisions
    choices = {label: (0, 1) if label != "normal/5" else (1, 4) for label, d in decisions.items() if d.kind == "inputs"}
    operations = {label: "skip_connect" for label, d in decisions.items() if d.active(choices) and label not in choices}
    operations["normal/5<-4"] = "sep_conv_3x3"
    assert to_text(build_graph(classification, choices | operations)) == (
        "toy-classifying\n"
        "├─ input\n"
        "├─ Identity\n"
        "├─ cell normal ×2\n"
        "├─ cell reduction\n"
        "├─ cell normal\n"
        "└─ output\n"
        "\n"
        "cell normal\n"
        "├─ input 0\n"
        "├─ input 1\n"
        "├─ 2 ← skip_connect(input 0), skip_connect(input 1)\n"
        "├─ 3 ← skip_connect(input 0), skip_connect(input 1)\n"
        "├─ 4 ← skip_connect(input 0), skip_connect(input 1)\n"
        "├─ 5 ← skip_connect(input 1), sep_conv_3x3(4)\n"
        "└─ concat ← 2, 3, 4, 5\n"
        "\n"
        "cell reduction\n"
        "├─ input 0\n"
        "├─ input 1\n"
        "├─ 2 ← skip_connect(input 0), skip_connect(input 1)\n"
        "├─ 3 ← skip_connect(input 0), skip_connect(input 1)\n"
        "├─ 4 ← skip_connect(input 0), skip_connect(input 1)\n"
        "├─ 5 ← skip_connect(input 0), skip_connect(input 1)\n"
        "└─ concat ← 2, 3, 4, 5\n"
    )


def test_all_candidates(nesting: Description) -> None:
    lines = to_text(build_graph(nesting)).splitlines()
    operations = "residual_3x3, residual_5x5, dense_3x3, dense_5x5, dilated_3x3, spatial_attention, channel_attention"
    assert lines[:14] == [
        "toy-nested",
        "├─ input",
        "├─ outer: one of row, plain, deep",
        "│  ├─ cell row",
        "│  ├─ plain ← input",
        "│  └─ deep",
        "│     ├─ Identity ← input",
        "│     └─ inside: one of a, b",
        "├─ width: one of 4, 8, 16 ← outer/row, outer/plain, outer/deep/inside",
        "├─ depth: one of 1, 3",
        "├─ blocks: one of 2, 4",
        "│  └─ block ×4: one of k3, k5",
        "├─ layer_0: one of mbconv3_k3, mbconv6_k5, skip",
        "├─ layer_1: one of the same",
    ]
    assert lines[-5:] == [
        "cell row",
        "├─ input",
        f"├─ row/1: one of {operations}",
        "├─ row/2: one of the same",
        "└─ output",
    ]


def test_what_holds_for_all_edges_stands_above_them(classification: Description) -> None:
    assert (
        "cell normal (each edge one of none, max_pool_3x3, avg_pool_3x3, skip_connect, sep_conv_3x3, sep_conv_5x5,"
        " dil_conv_3x3, dil_conv_5x5; each node keeps 2 of its in-edges)\n"
        "├─ input 0\n├─ input 1\n├─ 2 ← input 0, input 1\n├─ 3 ← input 0, input 1, 2\n"
    ) in to_text(build_graph(classification))


def test_a_cell_called_cell_is_named_once() -> None:
    description = find_space("digits").describe()
    lines = to_text(build_graph(description)).splitlines()
    assert lines[4] == "├─ cell"
    assert lines[12].startswith("cell (each edge one of ")


def test_nodes_without_inputs_or_use_say_so() -> None:
    """Node 1 gets nothing, node 2 is used by nothing."""
    description = find_space("nas-bench-201").describe(cells=1)
    edges = {f"cell/{node}<-{source}": "none" for node in (1, 2, 3) for source in range(node)}
    edges |= {"cell/2<-0": "nor_conv_1x1", "cell/3<-0": "skip_connect", "cell/3<-1": "avg_pool_3x3"}
    choices = {f"cell/{node}": tuple(range(node)) for node in (1, 2, 3)} | edges
    drawn = build_graph(description, choices)
    assert to_text(drawn).splitlines()[-5:] == [
        "├─ input 0",
        "├─ 1 ← nothing",
        "├─ 2 (unused) ← nor_conv_1x1(input 0)",
        "├─ 3 ← skip_connect(input 0), avg_pool_3x3(1)",
        "└─ output",
    ]
    assert '"2<br>unused"' in to_mermaid(drawn)
    assert '"2\\nunused"' in to_dot(drawn)
    (box,) = [box for box in make_picture(drawn).boxes if box.name == "cell cell/2"]
    assert [line.text for line in box.look.lines] == ["2", "unused"]
