"""TMICS as a search space: alignment and frequency are macro decisions, the operations of its cells micro decisions."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

import msgspec
from torch import nn

from nas.cell import Chain
from nas.choose import Chooser
from nas.errors import ConfigError
from nas.operations import Factory, OperationSet
from nas.space import search_space
from tmics_space.alignment import OpticalFlow, TemporalGrouping
from tmics_space.averaging import Averaging
from tmics_space.blocks import conv, head, normalization
from tmics_space.flow import make_flow
from tmics_space.frequency import FrequencyDecomposition
from tmics_space.network import Deraining, Route
from tmics_space.operations import OPERATIONS
from tmics_space.streaks import RainStreaks

RADII = {"gf2": (4, 6), "gf3": (2, 4, 6)}
"""Radii of the guided filters of each frequency cell."""

Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]


@search_space("tmics")
def tmics(
    choose: Chooser,
    /,
    *,
    channels: Positive = 96,
    frames: Positive = 5,
    dna_cells: Count = 4,
    cna_cells: Count = 4,
    layers: Positive = 4,
    tied: bool = True,
    alignment: tuple[Literal["ofm", "tgm"], ...] = ("ofm", "tgm"),
    frequency: tuple[Literal["none", "gf2", "gf3"], ...] = ("none", "gf2", "gf3"),
    flow: str | dict[str, Any] = "pyramid",
    streaks: bool = True,
    dna_input: Literal["sum", "concat"] = "sum",
    averaging: Literal["scalar", "channel", "pixel", "legacy", "free", "fixed"] = "channel",
    normalize: Literal["none", "group", "batch"] = "none",
    operations: OperationSet = OPERATIONS,
) -> nn.Module:
    """Video deraining by a dominant and a companion network that share their searched cell (TMICS).

    The decisions are `alignment` (ofm: optical flow, tgm: temporal groups), `frequency` (no decomposition, or guided
    filters of two or three radii) and `cell/1` ... `cell/LAYERS`, shared by all cells of both networks; with
    `tied=False` they are `dna/1` ... and `cna/1` ... instead. `flow` is a registered flow provider, by name or as
    `{name: pyramid, width: 8}` with its arguments; `operations` a set of candidates, by name, mapping or YAML file.
    The factories in `operations` take `channels`. `normalize` brings the alignments, and the operations, to one scale,
    so that mixing compares contributions.

    Ablations: `dna_cells=0` (companion alone), `cna_cells=0` (dominant alone), `averaging="fixed"` (one half),
    `alignment=["ofm"]` or `["tgm"]`, `frequency=["none"]`, `streaks=False` (no auxiliary rain).
    """
    if dna_cells == cna_cells == 0:
        raise ConfigError("space 'tmics': 'dna_cells' and 'cna_cells' are both 0; at least one network is needed")
    provider = {"name": flow} if isinstance(flow, str) else flow
    if "name" not in provider:
        raise ConfigError(f"space 'tmics': 'flow' needs the 'name' of a flow provider, found {flow}")

    def candidate(make: Factory) -> nn.Module:
        return nn.Sequential(make(), normalization(normalize, channels))

    def route(label: str, cells: int) -> Route:
        candidates = {name: partial(candidate, make) for name, make in operations.bind(channels).items()}
        label = "cell" if tied else label
        chains = (Chain(choose, label, candidates, length=layers, residual=True) for _ in range(cells))
        return Route(nn.Sequential(*chains), head(channels))

    aligned = {
        "ofm": lambda: OpticalFlow(channels, make_flow(**provider), frames=frames, normalize=normalize),
        "tgm": lambda: TemporalGrouping(channels, frames=frames, normalize=normalize),
    }
    decomposed = {
        "none": lambda: nn.Identity(),
        "gf2": lambda: FrequencyDecomposition(channels, RADII["gf2"]),
        "gf3": lambda: FrequencyDecomposition(channels, RADII["gf3"]),
    }
    auxiliary = streaks and dna_cells > 0
    both = dna_cells > 0 and cna_cells > 0
    return Deraining(
        alignment=choose("alignment", {name: aligned[name] for name in alignment}),
        frequency=choose("frequency", {name: decomposed[name] for name in frequency}),
        streaks=RainStreaks(channels) if auxiliary else None,
        stem=conv(3 if dna_input == "sum" else 6, channels, bias=True) if auxiliary else None,
        dna=route("dna", dna_cells) if dna_cells else None,
        cna=route("cna", cna_cells) if cna_cells else None,
        averaging=Averaging(averaging) if both else None,
        frames=frames,
        concat=dna_input == "concat",
    )


OPERATIONS.register("tmics")
