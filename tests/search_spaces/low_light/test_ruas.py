"""The space of RUAS: its size, its formulas, its conformance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from nas.cost.network_cost import measure
from nas.genotype.file import Genotype
from nas.testing import SearchSpaceTests
from search_spaces.low_light.ruas import CANDIDATES, Light, brightest, ruas_space

NAMES = ("keep_1", "pass_1", "keep_2", "pass_2", "keep_3", "pass_3", "keep_4")
LIGHT = ("skip_connect", "resconv_1x1", "resdilconv_3x3", "conv_3x3", "conv_3x3", "skip_connect", "conv_3x3")
NOISE = (
    *("resconv_1x1", "resconv_1x1", "resdilconv_3x3", "skip_connect"),
    *("resconv_1x1", "resconv_1x1", "skip_connect"),
)
"""The genotypes that the authors published (`genotypes.py` of their code)."""


class TestRuas(SearchSpaceTests):
    space = ruas_space
    options: ClassVar[Mapping[str, Any]] = {"estimations": 2, "denoisings": 1, "channels": 3}
    trials = 2

    def example_input(self) -> Tensor:
        return torch.rand(2, 3, 8, 9)


def published() -> Genotype:
    choices = {f"light/{name}": choice for name, choice in zip(NAMES, LIGHT, strict=True)}
    choices |= {f"noise/{name}": choice for name, choice in zip(NAMES, NOISE, strict=True)}
    return Genotype(space="ruas", choices=choices, options=ruas_space.options())


def test_there_are_seven_decisions_in_each_module() -> None:
    decisions = ruas_space.describe().decisions
    assert list(decisions) == [f"{module}/{name}" for module in ("light", "noise") for name in NAMES]
    assert {each.candidates for each in decisions.values()} == {tuple(CANDIDATES)}


def test_the_published_network_has_the_published_size() -> None:
    """0.003 M parameters (table 2 of the paper), here counted by hand."""
    light = 3 * (12 + 4 * 84 + 39)
    noise = 3 * (4 * 42 + 330 + 150) + 168 + 165
    assert measure(published()) == light + noise == 3438


def test_the_picture_is_divided_by_the_light() -> None:
    picture = 0.3 * torch.rand(1, 3, 6, 7)
    found = ruas_space.derived(published())(picture)
    assert found.light.min() >= 0.001
    assert torch.allclose(found.lit, (picture / found.light).clamp(0, 1))
    assert found.lit.max() <= 1
    assert found.output.shape == picture.shape


def test_each_round_corrects_the_guess_of_the_light() -> None:
    """A cell that returns its input shows the guesses; they are computed here pixel by pixel."""

    def largest(x: Tensor) -> Tensor:
        padded = torch.zeros(*x.shape[:2], x.shape[2] + 1, x.shape[3] + 1)
        padded[..., :-1, :-1] = x
        corners = [padded[..., i : i + x.shape[2], j : j + x.shape[3]] for i in (0, 1) for j in (0, 1)]
        return torch.stack(corners).amax(0)

    picture = torch.rand(1, 3, 4, 5)
    light = largest(picture).sigmoid()
    lit = (picture / light).clamp(0, 1)
    again = (largest(lit) - 0.5 * (lit - picture)).sigmoid()
    assert torch.equal(brightest(picture), largest(picture))
    assert torch.allclose(Light([torch.nn.Identity()] * 2)(picture)[1], again)  # type: ignore[list-item]
