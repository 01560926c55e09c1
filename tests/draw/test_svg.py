"""SVG: well-formed, complete, inside its view box, and deaf to odd names."""

from __future__ import annotations

import re
from collections import OrderedDict
from xml.etree import ElementTree

import pytest
from torch import nn

from nas.draw.picture import make_picture
from nas.draw.svg import to_svg
from nas.genotype.decision import Choice
from nas.graph.network_graph import build_graph
from nas.space.chooser import Chooser
from nas.space.definition import Description, search_space

SVG = "{http://www.w3.org/2000/svg}"


def test_every_picture_is_well_formed_and_inside_its_view_box(
    many: list[tuple[Description, dict[str, Choice] | None]],
) -> None:
    for description, choices in many[::10]:
        root = ElementTree.fromstring(to_svg(make_picture(build_graph(description, choices))))
        _, _, width, height = map(float, root.attrib["viewBox"].split())
        for rect in root.iter(f"{SVG}rect"):
            x, y, w, h = (float(rect.get(name, 0)) for name in ("x", "y", "width", "height"))
            assert 0 <= x <= x + w <= width + 0.1
            assert 0 <= y <= y + h <= height + 0.1
        for path in root.iter(f"{SVG}path"):
            numbers = [float(n) for n in re.findall(r"-?[\d.]+", path.attrib["d"])]
            assert 0 <= min(numbers[::2]) <= max(numbers[::2]) <= width
            assert 0 <= min(numbers[1::2]) <= max(numbers[1::2]) <= height


def test_all_that_the_graph_says_is_in_the_picture(restoration: Description) -> None:
    drawn = build_graph(restoration)
    root = ElementTree.fromstring(to_svg(make_picture(drawn)))
    texts = [text.text for text in root.iter(f"{SVG}text")]
    names = ("frames", "alignment", "ofm", "tgm", "streaks", "dna", "cna", "cells ×4", "averaging", "output", "row")
    assert set(names) <= set(texts)
    assert texts.count("residual_3x3") == 4
    assert len(list(root.iter(f"{SVG}polygon"))) == drawn.number_of_edges()  # one arrow head each


def test_decisions_are_explained_to_who_points_at_them(restoration: Description) -> None:
    root = ElementTree.fromstring(to_svg(make_picture(build_graph(restoration))))
    assert "alignment: one of ofm, tgm" in [title.text for title in root.iter(f"{SVG}title")]


@pytest.mark.parametrize("name", ['<a> & "b"', "back\\slash", "雨 é ×", "x" * 80])
def test_odd_names(name: str) -> None:
    @search_space("toy-odd")
    def odd(choose: Chooser, /) -> nn.Module:
        chosen = choose("decision", {"a": nn.Identity})
        return nn.Sequential(OrderedDict([(name, nn.Identity()), ("other", chosen)]))

    root = ElementTree.fromstring(to_svg(make_picture(build_graph(odd.describe()))))
    assert name in [text.text for text in root.iter(f"{SVG}text")]
