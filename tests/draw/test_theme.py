"""Dark pictures: every colour has a dark one, and they can be read and told apart."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from types import ModuleType

import pytest

from nas.draw.marks import marked
from nas.draw.picture import make_picture
from nas.draw.rendering import render
from nas.draw.style import INK, PALETTE
from nas.draw.svg import to_svg
from nas.draw.theme import BACKGROUND, DARK, DARK_PALETTE
from nas.errors import ConfigError
from nas.genotype.decision import Choice
from nas.graph.network_graph import build_graph
from nas.space.definition import Description
from written import imported

COLOUR = r"#[0-9a-f]{6}"


@pytest.fixture(scope="module")
def vision() -> ModuleType:
    """The formulas of contrast and colour blindness, beside this file."""
    return imported(Path(__file__).with_name("test_style.py"))


def test_no_light_colour_is_left(many: list[tuple[Description, dict[str, Choice] | None]]) -> None:
    drawn = [build_graph(description, choices) for description, choices in many[::12]]
    for one in (*drawn, marked(drawn[1], drawn[2])):
        light, dark = (set(re.findall(COLOUR, to_svg(make_picture(one), theme))) for theme in ("light", "dark"))
        assert light <= {*DARK}
        assert dark <= {*DARK.values(), BACKGROUND["dark"]}
        assert not dark & light - {"#8c8c8c"}
    plain, dark_text = (re.sub(COLOUR, "", to_svg(make_picture(drawn[0]), theme)) for theme in ("light", "dark"))
    assert plain == dark_text


@pytest.mark.parametrize("fill", [*(fill for fill, _ in DARK_PALETTE), DARK["#ffffff"], DARK["#f2f2f2"]])
def test_text_is_legible(fill: str, vision: ModuleType) -> None:
    assert vision.contrast(DARK[INK], fill) >= 7


@pytest.mark.parametrize("stroke", sorted({c for light, c in DARK.items() if light not in dict(PALETTE)}))
def test_lines_stand_out(stroke: str, vision: ModuleType) -> None:
    fills = {DARK[fill] for fill in ("#ffffff", "#f2f2f2", "#e2e4f3", "#f1dde7")}
    assert stroke in fills or vision.contrast(stroke, BACKGROUND["dark"]) >= 3


@pytest.mark.parametrize("blindness", ["protanopia", "deuteranopia"])
def test_families_are_told_apart_by_colour_blind_readers(blindness: str, vision: ModuleType) -> None:
    for (_, a), (_, b) in itertools.combinations(DARK_PALETTE, 2):
        assert vision.distance(a, b, blindness) > 40, (a, b)


def test_only_svg_is_dark(restoration: Description) -> None:
    assert BACKGROUND["dark"] in render(restoration, theme="dark")
    with pytest.raises(ConfigError, match="svg, got dot"):
        render(restoration, None, "dot", theme="dark")
