"""The search space TMICS: alignment and frequency are macro decisions, the operations of cells micro decisions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
from torch import nn

from nas.errors import ConfigError
from nas.registry import Count
from nas.space.cell import Chain
from nas.space.chooser import Chooser
from nas.space.definition import search_space
from nas.space.operations import Factory, OperationSet
from tmics_space.alignment import OpticalFlow, TemporalGrouping
from tmics_space.averaging import AVERAGINGS, Averaging
from tmics_space.blocks import conv, head, normalization
from tmics_space.consistency import PhotometricConsistency, Trust
from tmics_space.flow import FLOW_PROVIDERS
from tmics_space.frequency import FrequencyDecomposition
from tmics_space.network import Deraining, Route
from tmics_space.operations import OPERATIONS
from tmics_space.rain_layer import NoStreaks, RainStreaks

RADII = {"gf2": (4, 6), "gf3": (2, 4, 6)}
"""The radii of the guided filters of each frequency cell, in pixels of a frame."""
CONSISTENCY = {"none": Trust, "photometric": PhotometricConsistency}
"""The modules that make the masks of optical flow alignment."""

Cells = Annotated[int, msgspec.Meta(ge=0)]


@search_space("tmics")
def tmics(
    choose: Chooser,
    /,
    *,
    channels: Count = 96,
    frames: Count = 5,
    dna_cells: Cells = 4,
    cna_cells: Cells = 4,
    layers: Count = 4,
    tied: bool = True,
    alignment: tuple[Literal["ofm", "tgm"], ...] = ("ofm", "tgm"),
    frequency: tuple[Literal["none", "gf2", "gf3"], ...] = ("none", "gf2", "gf3"),
    flow: str | dict[str, Any] = "pyramid",
    consistency: tuple[Literal["none", "photometric"], ...] = ("none",),
    streaks: bool | Literal["search"] = True,
    dna_input: Literal["sum", "concat"] = "sum",
    averaging: str | dict[str, Any] = "channel",
    normalize: Literal["none", "group", "batch"] = "none",
    scale: Literal[1, 2] = 1,
    operations: OperationSet = OPERATIONS,
) -> nn.Module:
    """Video deraining by a dominant and a companion network that share a searched cell (TMICS).

    The decisions are `alignment`, `frequency` and `cell/1` ... `cell/LAYERS`, which all cells of both networks share.
    With `tied=False`, `dna/1` ... and `cna/1` ... take the place of `cell/1` .... If `consistency` names more than
    `none`, it is a decision within the candidate `ofm`.

    Ablations: `dna_cells=0` (companion network only), `cna_cells=0` (dominant network only), `averaging="fixed"` (one
    half), `alignment=["ofm"]` or `["tgm"]`, `frequency=["none"]`, `streaks=False` (no auxiliary rain layer).

    The factories in `operations` take `channels`.

    Args:
        choose: states the decisions.
        channels: of the features.
        frames: odd length of the window, at least 3.
        dna_cells: number of cells of the dominant network.
        cna_cells: number of cells of the companion network.
        layers: number of operations in a cell.
        tied: share one cell between both networks.
        alignment: candidates: `ofm` (optical flow), `tgm` (temporal groups).
        frequency: candidates: `none`, or guided filters of two (`gf2`) or three (`gf3`) radii.
        flow: a flow provider, by name or with its arguments: `{name: pyramid, width: 8}`.
        consistency: candidates for the masks that show the fusion where the flow fails: `none` (no mask, or ones), or
            `photometric` (`tmics_space.consistency`).
        streaks: add the auxiliary rain layer to the input of the dominant network; `search` makes this a decision of
            the candidates `none` (a layer without rain) and `rain`.
        dna_input: selects how the rain layer enters (`tmics_space.network.Deraining`).
        averaging: computes the weight of the dominant branch; by name or with its arguments.
        normalize: name of a norm after alignments and operations, which brings the mixed features to one scale.
        scale: pixels of a frame, along each side, in one pixel of all features. With 2, cells take a quarter of the
            time at the same width; frames are still warped, averaged and returned at full size.
        operations: candidates of the cells, by name, mapping or YAML file.

    Raises:
        ConfigError: both networks have no cells, or `flow` or `averaging` is not valid.

    Shape:
        Frames `(batch, frames, 3, height, width)` in [0, 1] to `tmics_space.network.Restored`.
    """
    if dna_cells == cna_cells == 0:
        raise ConfigError("space 'tmics': 'dna_cells' or 'cna_cells' must be at least 1, got 0 for both")
    FLOW_PROVIDERS.prepare(flow, "options.flow")  # also if a part that uses them is left out
    AVERAGINGS.prepare(averaging, "options.averaging")

    def candidate(make: Factory) -> nn.Module:
        return nn.Sequential(make(), normalization(normalize, channels))

    def route(label: str, cells: int) -> Route:
        candidates = {name: partial(candidate, make) for name, make in operations.bind(channels).items()}
        label = "cell" if tied else label
        chains = (Chain(choose, label, candidates, length=layers, residual=True) for _ in range(cells))
        return Route(nn.Sequential(*chains), head(channels, scale))

    def optical_flow() -> nn.Module:
        provider = FLOW_PROVIDERS.create(flow, "options.flow")
        masks = None
        if consistency != ("none",):
            masks = choose("consistency", {name: partial(CONSISTENCY[name], scale) for name in consistency})
        return OpticalFlow(channels, provider, frames, normalize=normalize, scale=scale, consistency=masks)

    def rain_layer() -> nn.Module:
        make = partial(RainStreaks, channels)
        return choose("streaks", {"none": NoStreaks, "rain": make}) if streaks == "search" else make()

    def decomposition(name: str) -> nn.Module:
        return FrequencyDecomposition(channels, [radius // scale for radius in RADII[name]])

    aligned = {
        "ofm": optical_flow,
        "tgm": lambda: TemporalGrouping(channels, frames, normalize=normalize, scale=scale),
    }
    decomposed: dict[str, Callable[[], nn.Module]] = {"none": nn.Identity}
    decomposed |= {name: partial(decomposition, name) for name in RADII}
    auxiliary = bool(streaks) and dna_cells > 0
    both = dna_cells > 0 and cna_cells > 0
    return Deraining(
        alignment=choose("alignment", {name: aligned[name] for name in alignment}),
        frequency=choose("frequency", {name: decomposed[name] for name in frequency}),
        streaks=rain_layer() if auxiliary else None,
        stem=conv(3 if dna_input == "sum" else 6 * scale**2, channels, bias=True) if auxiliary else None,
        dna=route("dna", dna_cells) if dna_cells else None,
        cna=route("cna", cna_cells) if cna_cells else None,
        averaging=Averaging(averaging) if both else None,
        frames=frames,
        concat=dna_input == "concat",
        scale=scale,
    )


OPERATIONS.register("tmics")
