"""The losses of RUAS against plain loops over pixels."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from search_spaces.low_light.reference_free import light_loss, noise_loss, roughness


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.rand(2, 1, 3, 5, 6, dtype=torch.double, generator=generator)
    return first, second


def test_roughness_sums_over_24_neighbours(pair: tuple[Tensor, Tensor]) -> None:
    light, picture = pair
    total = 0.0
    for rows, columns in itertools.product(range(-2, 3), repeat=2):
        if (rows, columns) == (0, 0):
            continue
        weights, differences = [], []
        for i, j in itertools.product(range(5), range(6)):
            if 0 <= i + rows < 5 and 0 <= j + columns < 6:
                far = (picture[0, :, i, j] - picture[0, :, i + rows, j + columns]).square().sum().item()
                weights.append(math.exp(-0.005 * far))
                differences.append((light[0, :, i, j] - light[0, :, i + rows, j + columns]).abs().mean().item())
        total += sum(weights) / len(weights) * sum(differences) / len(differences)
    assert roughness(light, picture).item() == pytest.approx(total)
    assert roughness(torch.ones_like(light), picture) == 0


def test_the_light_stays_close_to_the_picture(pair: tuple[Tensor, Tensor]) -> None:
    light, picture = pair
    expected = roughness(light, picture) + 0.5 * (light - picture).square().mean()
    assert light_loss(picture, light).item() == pytest.approx(expected.item())


def test_the_variation_of_a_ramp_is_its_slopes(pair: tuple[Tensor, Tensor]) -> None:
    rows, columns = torch.arange(5.0)[:, None], torch.arange(6.0)
    ramp = (0.1 * rows + 0.2 * columns).expand(1, 3, 5, 6)
    assert noise_loss(ramp, ramp, 1.0).item() == pytest.approx(2 * (0.01 + 0.04))
    assert noise_loss(ramp, ramp + 0.3, 2.0).item() == pytest.approx(2 * 0.05 + 2 * 0.09)
