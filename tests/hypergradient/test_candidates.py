"""The order of candidates changes rounding only, whatever the method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.files import convert
from nas.multilevel.level import Level
from nas.multilevel.multilevel import Multilevel
from nas.space.chooser import Chooser
from nas.space.definition import SearchSpace, search_space
from nas.supernet import Supernet
from quadratic import METHODS

OWNED = {"closed": ["network.1.linear.*"]}
"""For a method that not every level can have: a loss that is quadratic in these."""

CANDIDATES: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(3, 3),
    "none": nn.Identity,
    "smooth": lambda: nn.Sequential(nn.Linear(3, 3), nn.SiLU()),
    "tanh": nn.Tanh,
}


def space(name: str, order: list[str]) -> SearchSpace:
    candidates = {candidate: CANDIDATES[candidate] for candidate in order}

    @search_space(name)
    def ordered(choose: Chooser, /) -> nn.Module:
        return nn.Sequential(choose("first", candidates), choose("second", candidates))

    return ordered


SPACES = (space("ordered", list(CANDIDATES)), space("reordered", ["tanh", "smooth", "none", "linear"]))


def fit(net: nn.Module, x: Tensor) -> Tensor:
    loss: Tensor = (net(x) - x.cos()).square().mean()
    return loss


def searched(chosen: SearchSpace, method: str) -> dict[tuple[str, str], float]:
    """The arch parameters after a few steps, and their gradient then, by label and candidate."""
    common: dict[str, Any] = {"loss": "fit", "clip": 0.5}
    levels = {
        "lower": {
            "parameters": OWNED.get(method, ["network.*"]),
            "split": "train",
            "optimizer": {"name": "adam", "lr": 0.05},
        },
        "upper": {
            "parameters": ["arch.*"],
            "split": "val",
            "optimizer": {"name": "sgd", "lr": 0.5},
            "hypergradient": {"lower": {"name": method, **COVERED.get(method, {})}},
        },
    }
    typed = {name: convert({**common, **level}, Level, name) for name, level in levels.items()}

    def batch(split: str, index: int) -> Tensor:
        generator = torch.Generator().manual_seed(2 * index + (split == "val"))
        return torch.randn(8, 3, generator=generator, dtype=torch.float64)

    supernet = Supernet(chosen, seed=1).double()
    engine = Multilevel(supernet, typed, {"fit": fit}, batch, 10)
    for k in range(4):
        engine.step(k)
    gradients = engine.gradient("upper", 4)[1]
    found = {}
    for label, logits in supernet.arch.items():
        for i, candidate in enumerate(supernet.decisions[label].candidates):
            found[label, str(candidate)] = logits[i].item()
            found[f"gradient of {label}", str(candidate)] = gradients[f"arch.{label}"][i].item()
    return found


POSITIVE = {"damping": {"relative": 0.1}, "curvature": "gauss_newton"}
COVERED: dict[str, dict[str, Any]] = {"implicit": POSITIVE, "conjugate_gradient": POSITIVE}
"""A curvature that is never negative."""


@pytest.mark.parametrize("method", METHODS)
def test_reordering_candidates_changes_rounding_only(method: str) -> None:
    one, other = (searched(chosen, method) for chosen in SPACES)
    assert other == pytest.approx(one, rel=1e-8, abs=1e-10)
    assert max(map(abs, one.values())) > 1e-2
