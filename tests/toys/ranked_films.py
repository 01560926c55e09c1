"""Films and pictures on several ranks, for `ranked.on_ranks`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn

from nas.distributed.ranks import joined
from nas.errors import NASError
from nas.supernet import Supernet
from search_spaces.low_light.ruas import Enhanced
from search_spaces.low_light.task import LowLight
from tmics_space.predict import derain_file
from tmics_space.space import tmics
from tmics_space.task import DerainConfig, DerainTask

WAYS: dict[str, dict[str, Any]] = {"whole": {}, "tiled": {"tile": 64}, "narrow": {"bfloat16": True}}


def network() -> nn.Module:
    """A network that aligns by a learned flow."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"channels": 4, "dna_cells": 1, "cna_cells": 1, "layers": 1, "frequency": ["none"]}
    supernet = Supernet(tmics, **options, alignment=["ofm"], flow={"name": "pyramid", "width": 4})
    return supernet.derived(supernet.derive()).eval()


def derained(data: Path, out: Path) -> dict[str, Any]:
    """Predictions of films and pictures into a folder, the scores of deraining, and an error."""
    net = network()
    found: dict[str, Any] = {}
    with joined():
        for source in ("film.mkv", "gap", "short"):
            facts = derain_file(net, data / source, out / source)
            found[source] = {name: value for name, value in facts.items() if "second" not in name}
        for way, how in WAYS.items():
            derain_file(net, data / "wide", out / way, **how)
        LowLight().predict(Lit(), data / "short", out / "light")
        found["scores"] = task(data).evaluate(net)
        try:
            derain_file(net, data / "short", out / "short")
        except NASError as error:
            found["error"] = str(error)
    return found


def task(data: Path) -> DerainTask:
    """Deraining scored on three clips, so that ranks have unequal shares."""
    films = {"kind": "films", "films": {str(i): str(data / "short") for i in range(3)}, "rain": "complex25"}
    return DerainTask(msgspec.convert({"train": films, "test": films, "crop": 16}, DerainConfig))


class Lit(nn.Module):
    """Stands for a network that makes pictures brighter."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(2.0))

    def forward(self, picture: torch.Tensor) -> Enhanced:
        return Enhanced(self.gain * picture, picture, picture)
