"""Themes: for each colour of a light picture, the colour of the dark one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from nas.draw.style import DECISION, FAINT, FRAME, INK, LINE, MARK, PALETTE, PLAIN, SIZE, WHITE

Theme = Literal["light", "dark"]

BACKGROUND: Mapping[Theme, str] = {"light": WHITE, "dark": "#16181d"}

DARK_PALETTE = (
    ("#2e4151", "#7cc4f5"),
    ("#4a3b22", "#f0a830"),
    ("#1e453c", "#38d39f"),
    ("#462a24", "#e0633a"),
    ("#3d3041", "#b77db1"),
    ("#4c4b3c", "#f5ee9e"),
    ("#24314c", "#4f7fe0"),
    ("#2d2f33", "#777777"),
)
"""`PALETTE` for dark pictures. Strokes have a contrast of 3:1 on the background, texts 7:1 on fills."""

DARK: Mapping[str, str] = {
    WHITE: "#22252b",
    PLAIN: "#2c3037",
    INK: "#ececec",
    FAINT: "#b4b4b4",
    LINE: "#9a9a9a",
    FRAME: "#7d7d7d",
    MARK: "#ff6fc0",
    DECISION[0]: "#393a4e",
    DECISION[1]: "#a9a4e8",
    SIZE[0]: "#463341",
    SIZE[1]: "#e08ab5",
    **{
        light: dark
        for pair, darker in zip(PALETTE, DARK_PALETTE, strict=True)
        for light, dark in zip(pair, darker, strict=True)
    },
}
