from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tmics_space.rain_layer import RainStreaks, rain_dictionary


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def kernel_by_loops(i: int) -> list[list[float]]:
    """Kernel i of 1...32, as RCDNet's script makes it, one number at a time."""
    if i <= 12:
        long, inner, std = 2.5 + 0.25 * i, 0.1, 0.25
    else:
        long, inner, std = 2 + 0.25 * i, 0.2, 0.5
    dead = round(4 * inner)
    rows = []
    for y in range(-4, 5):
        values = []
        for x in range(-4, 5):
            across = max(abs(x) - dead, 0)
            along = max(abs(y) - dead, 0) / long
            values.append(math.exp(-(across**2 + along**2) / (2 * std**2)))
        rows.append(values)
    total = sum(map(sum, rows))
    return [[value / total for value in values] for values in rows]


def test_point_01_parameters() -> None:
    streaks = RainStreaks(96)
    assert count(streaks.maps) == 55_377
    assert streaks.dictionary.numel() == 7_776
    assert streaks.dictionary.requires_grad


@pytest.mark.parametrize("i", [1, 7, 12, 13, 20, 32])
def test_the_dictionary_follows_its_formula(i: int) -> None:
    kernels = rain_dictionary()
    assert kernels.shape == (3, 32, 9, 9)
    for colour in range(3):
        torch.testing.assert_close(kernels[colour, i - 1], torch.tensor(kernel_by_loops(i)))


@pytest.mark.parametrize("streaks", [1, 8, 32, 40])
def test_every_streak_sums_to_one(streaks: int) -> None:
    kernels = rain_dictionary(streaks)
    assert kernels.shape == (3, streaks, 9, 9)
    torch.testing.assert_close(kernels.sum((2, 3)), torch.ones(3, streaks))
    assert (kernels >= 0).all()


def test_fewer_streaks_reach_from_the_shortest_to_the_longest() -> None:
    few, all_of_them = rain_dictionary(2), rain_dictionary()
    assert torch.equal(few[:, 0], all_of_them[:, 0])
    assert torch.equal(few[:, 1], all_of_them[:, 31])


def test_rain_is_the_maps_convolved_with_a_tenth_of_the_dictionary() -> None:
    streaks = RainStreaks(4, 6)
    maps = torch.zeros(1, 6, 20, 21)
    maps[0, 2, 9, 11] = 3.0
    streaks.maps = nn.Identity()
    expected = torch.zeros(1, 3, 20, 21)
    expected[..., 5:14, 7:16] = 0.3 * streaks.dictionary[:, 2].detach()
    torch.testing.assert_close(streaks(maps), expected)  # a symmetric kernel: correlation is convolution


@pytest.mark.parametrize("size", [(16, 18), (7, 13), (4, 5), (1, 1)])
def test_squares_of_pixels_are_convolved_as_single_pixels_are(size: tuple[int, int]) -> None:
    streaks = RainStreaks(4, 6).double()
    nn.init.normal_(streaks.dictionary)
    features = torch.randn(2, 4, *size, dtype=torch.float64)
    expected = F.conv2d(streaks.maps(features), streaks.dictionary / 10, padding=4)
    torch.testing.assert_close(streaks(features), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(16, 16), (7, 13), (1, 1)])
def test_any_size_keeps_its_size(size: tuple[int, int]) -> None:
    assert RainStreaks(4)(torch.rand(2, 4, *size)).shape == (2, 3, *size)


def test_every_parameter_learns_and_batch_items_are_independent() -> None:
    streaks = RainStreaks(4, 6).double()
    features = torch.randn(3, 4, 9, 9, dtype=torch.float64)
    rain = streaks(features)
    torch.testing.assert_close(rain[1:2], streaks(features[1:2]))
    rain.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in streaks.parameters())


def test_gradients_to_the_dictionary_are_right() -> None:
    streaks = RainStreaks(2, 2).double()
    features = torch.randn(1, 2, 3, 3, dtype=torch.float64)

    def rain(dictionary: Tensor) -> Tensor:
        return torch.func.functional_call(streaks, {"dictionary": dictionary}, (features,))

    assert torch.autograd.gradcheck(rain, streaks.dictionary.detach().clone().requires_grad_())


def test_it_is_described_on_the_meta_device() -> None:
    with torch.device("meta"):
        assert RainStreaks(4).dictionary.is_meta
