"""Colours that can be told apart and read, widths of text, families of operations."""

from __future__ import annotations

import itertools

import pytest

from nas.draw import style
from nas.draw.style import PALETTE, family, text_width, wrap
from nas.graph.network_graph import build_graph
from nas.space.definition import Description


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.1)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


FILLS = ["#ffffff", style.PLAIN, style.DECISION[0], style.SIZE[0]]


def test_contrast_formula() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("fill", [*FILLS, *(fill for fill, _ in PALETTE)])
def test_text_is_legible(fill: str) -> None:
    assert contrast(style.INK, fill) >= 7
    assert contrast(style.FAINT, fill) >= 4.5 or fill not in FILLS  # small headings are on these only


@pytest.mark.parametrize("stroke", [style.LINE, style.DECISION[1], style.SIZE[1], *(stroke for _, stroke in PALETTE)])
def test_lines_stand_out_on_white(stroke: str) -> None:
    assert contrast(stroke, "#ffffff") >= 3


# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
BLIND = {
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.01182, 0.04294, 0.968881)),
}


def distance(a: str, b: str, blindness: str) -> float:
    """How far apart two colours are for a colour-blind reader, in sRGB."""

    def seen(colour: str) -> list[float]:
        linear = [(int(colour[i : i + 2], 16) / 255) ** 2.2 for i in (1, 3, 5)]
        mixed = [sum(w * c for w, c in zip(row, linear, strict=True)) for row in BLIND[blindness]]
        return [max(0.0, c) ** (1 / 2.2) * 255 for c in mixed]

    return float(sum((p - q) ** 2 for p, q in zip(seen(a), seen(b), strict=True)) ** 0.5)


@pytest.mark.parametrize("blindness", BLIND)
def test_families_are_told_apart_by_colour_blind_readers(blindness: str) -> None:
    for (_, a), (_, b) in itertools.combinations(PALETTE, 2):
        assert distance(a, b, blindness) > 40, (a, b)


# Advance widths in DejaVu Sans, per pixel of size, taken from the font.
@pytest.mark.parametrize(
    ("text", "bold", "width"),
    [
        ("Residualblocks_5_1", False, 9.67),
        ("sep_conv_3x3", False, 7.02),
        ("mbconv6_k7", True, 6.96),
        ("channel_attention", True, 10.17),
        ("WWWMMM", False, 5.55),
        ("illicit", False, 2.33),
        ("dna ×4", True, 3.98),
    ],
)
def test_widths_are_upper_estimates(text: str, bold: bool, width: float) -> None:
    assert 13 * width <= text_width(text, 13, bold) <= 1.25 * 13 * width


def test_width_of_wide_and_combining_characters() -> None:
    assert text_width("雨", 10) == 10
    assert text_width("e\u0301", 10) == text_width("e", 10)


def test_wrap_breaks_at_spaces_only() -> None:
    lines = wrap("one two three four " + "x" * 40, 60, 11)
    assert " ".join(lines) == "one two three four " + "x" * 40
    assert all(text_width(line, 11) <= 60 for line in lines[:-1])


@pytest.mark.parametrize(
    ("operation", "expected"),
    [("sep_conv_3x3", "sep_conv"), ("DilConv_3_2", "DilConv"), ("skip", "skip"), ("conv1x1", "conv"), ("3x3", "3x3")],
)
def test_family(operation: str, expected: str) -> None:
    assert family(operation) == expected


def test_families_share_a_colour_whatever_is_chosen(classification: Description) -> None:
    choices = {label: d.candidates[1] for label, d in classification.decisions.items() if d.kind == "operation"}
    choices |= {label: d.candidates[: d.keep] for label, d in classification.decisions.items() if d.kind == "inputs"}
    active = {label: c for label, c in choices.items() if classification.decisions[label].active(choices)}
    colours = style.families(build_graph(classification))
    assert colours == style.families(build_graph(classification, active))
    assert colours["sep_conv_3x3"] == colours["sep_conv_5x5"] != colours["dil_conv_3x3"]
    assert len(set(colours.values())) == 6
