"""What distinguishes two genotypes, marked in one picture."""

from __future__ import annotations

import itertools
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from nas.derive.random import choose_randomly
from nas.draw.dot import to_dot
from nas.draw.marks import marked
from nas.draw.picture import make_picture
from nas.draw.rendering import save_difference
from nas.draw.style import MARK
from nas.draw.svg import to_svg
from nas.draw.text import to_text
from nas.errors import ConfigError
from nas.genotype.decision import Choice
from nas.genotype.file import Genotype
from nas.graph.network_graph import Graph, build_graph
from nas.space.definition import Description


def cell(description: Description, **changes: Choice) -> Graph:
    """A cell in which every node takes the first two states by skips, with changes (`n4_1` is `normal/4<-1`)."""
    choices: dict[str, Choice] = {}
    for label, decision in description.decisions.items():
        if decision.kind == "inputs":
            choices[label] = (0, 1)
    choices |= {f"{label}<-{source}": "skip_connect" for label in [*choices] for source in (0, 1)}
    for name, choice in changes.items():
        label = f"normal/{name[1:].replace('_', '<-')}"
        if isinstance(choice, tuple):
            choices = {key: value for key, value in choices.items() if not key.startswith(f"{label}<-")}
            choices |= {f"{label}<-{source}": "skip_connect" for source in choice}
        choices[label] = choice
    return build_graph(description, choices)


def test_equal_graphs_have_no_marks(classification: Description) -> None:
    one = cell(classification)
    union = marked(one, cell(classification))
    assert to_svg(make_picture(union)) == to_svg(make_picture(one))


def test_marks(classification: Description) -> None:
    before = cell(classification)
    after = cell(classification, n4=(0, 2), n3_1="sep_conv_3x3")
    union = marked(before, after)
    marks = {(a, b): (d.get("mark"), d.get("was")) for a, b, d in union.edges(data=True) if d.get("mark")}
    assert marks == {
        ("cell normal/1", "cell normal/4"): ("removed", None),
        ("cell normal/2", "cell normal/4"): ("added", None),
        ("cell normal/1", "cell normal/3"): ("changed", "skip_connect"),
    }
    assert set(union.edges) == {*before.edges, *after.edges}
    assert not [d for _, d in union.nodes(data=True) if d.get("mark")]


def test_marks_are_in_every_rendering(classification: Description) -> None:
    union = marked(cell(classification), cell(classification, n4=(0, 2), n3_1="sep_conv_3x3"))
    root = ElementTree.fromstring(to_svg(make_picture(union)))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"added", "removed", "was skip_connect"} <= set(texts)
    paths = [path for path in root.iter("{http://www.w3.org/2000/svg}path") if path.get("stroke") == MARK]
    assert len(paths) == 3
    assert sum(path.get("stroke-dasharray") is not None for path in paths) == 1
    assert 'label="sep_conv_3x3\\nwas skip_connect"' in to_dot(union)
    assert to_dot(union).count(MARK) == 6
    assert "sep_conv_3x3(input 1) [was skip_connect]" in to_text(union)
    assert "skip_connect(input 1) [removed]" in to_text(union)


def test_unions_of_random_genotypes_can_be_laid_out(many: list[tuple[Description, dict[str, Choice] | None]]) -> None:
    for (description, before), (other, after) in itertools.pairwise(many[::8]):
        if description is other and before and after:
            union = marked(build_graph(description, before), build_graph(description, after))
            drawn = make_picture(union)
            assert {box.name for box in drawn.boxes if not box.label} | {f.name for f in drawn.frames} == set(union)


def test_nodes_that_come_and_go(nesting: Description) -> None:
    generator = torch.Generator().manual_seed(0)
    choices = choose_randomly(nesting.decisions, generator)
    choices = {label: choice for label, choice in choices.items() if label not in ("inside", "row/1", "row/2")}
    plain = build_graph(nesting, choices | {"outer": "plain"})
    deep = build_graph(nesting, choices | {"outer": "deep", "inside": "b"})
    added, removed = marked(plain, deep), marked(deep, plain)
    (inside,) = [name for name, d in deep.nodes(data=True) if d["decision"] == "inside"]
    assert added.nodes[inside]["mark"] == "added"
    assert removed.nodes[inside]["mark"] == "removed"


def test_save_difference(tmp_path: Path) -> None:
    heavy, light = Genotype.load("tmics-heavy"), Genotype.load("tmics-light")
    save_difference(tmp_path / "d.svg", heavy, light)
    assert "was channel_attention" in (tmp_path / "d.svg").read_text()
    with pytest.raises(ConfigError, match="'tmics' and 'toy'"):
        save_difference(tmp_path / "e.svg", heavy, Genotype(space="toy", choices={}))
