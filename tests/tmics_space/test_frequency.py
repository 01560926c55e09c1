from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from nas.errors import ConfigError
from tmics_space.frequency import (
    EPSILONS,
    TOGETHER,
    BoxFilter,
    FrequencyDecomposition,
    decompose,
    guided_filter,
    guided_filters,
)

Array = NDArray[np.float64]


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def random(*shape: int) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def windows(height: int, width: int, radius: int) -> dict[tuple[int, int], tuple[slice, slice]]:
    def span(centre: int) -> slice:
        return slice(max(centre - radius, 0), centre + radius + 1)

    return {(y, x): (span(y), span(x)) for y in range(height) for x in range(width)}


def test_point_01_parameters() -> None:
    assert count(FrequencyDecomposition(96, (4, 6))) == 574_669
    assert count(FrequencyDecomposition(96, (2, 4, 6))) == 611_533


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 13))
def test_the_box_filter_is_the_mean_of_the_window_inside_the_image(height: int, width: int, radius: int) -> None:
    image = random(2, 3, height, width)
    means = BoxFilter(radius, image)(image)
    for (y, x), window in windows(height, width, radius).items():
        torch.testing.assert_close(means[..., y, x], image[..., window[0], window[1]].mean((2, 3)))
    torch.testing.assert_close(BoxFilter(radius, image)._pooled(image), means)  # what other devices do


def test_point_10_the_guided_filter_is_ridge_regression_in_every_window() -> None:
    """Its definition (He et al., eqs. 3, 4 and 8), by least squares: window k fits a_k guide + b_k to the source."""
    radius, eps, height, width = 1, 0.02, 6, 5
    guide, source = random(1, 1, height, width), random(1, 2, height, width) ** 2
    expected = torch.zeros_like(source)
    boxes = windows(height, width, radius)
    for channel in range(2):
        g, p = guide[0, 0].numpy(), source[0, channel].numpy()
        fits = {}
        for centre, window in boxes.items():
            inside = g[window].ravel()
            design = np.stack((inside, np.ones_like(inside)), 1)
            ridge = np.array([[np.sqrt(len(inside) * eps), 0.0]])
            target = np.append(p[window].ravel(), 0.0)
            fits[centre] = np.linalg.lstsq(np.concatenate((design, ridge)), target, rcond=None)[0]
        for (y, x), (rows, columns) in boxes.items():
            near = [fits[i, j] for i in range(height)[rows] for j in range(width)[columns]]
            a, b = np.mean(near, 0)
            expected[0, channel, y, x] = a * g[y, x] + b
    torch.testing.assert_close(guided_filter(guide, source, radius, eps), expected)


def twice_averaged(source: Tensor) -> Tensor:
    mean = BoxFilter(3, source)
    return mean(mean(source))


def test_point_10_a_constant_guide_takes_the_mean_of_means() -> None:
    source = random(2, 3, 9, 12)
    guide = torch.full((2, 1, 9, 12), 0.7, dtype=torch.float64)
    torch.testing.assert_close(guided_filter(guide, source, 3, 1e-4), twice_averaged(source))


def test_point_10_a_large_eps_takes_the_mean_of_means() -> None:
    guide, source = random(2, 1, 9, 12), random(2, 3, 9, 12)
    expected = twice_averaged(source)
    torch.testing.assert_close(guided_filter(guide, source, 3, 1e9), expected, rtol=0, atol=1e-8)


def test_point_10_a_small_eps_keeps_what_the_guide_has() -> None:
    guide = random(2, 1, 9, 12)
    source = torch.cat((guide, 2 - 3 * guide), 1)
    torch.testing.assert_close(guided_filter(guide, source, 3, 1e-12), source, rtol=0, atol=1e-8)


def test_point_10_the_bands_that_are_mixed_sum_to_the_projected_features() -> None:
    cell = FrequencyDecomposition(4, (2, 3)).double()
    p = cell.project(random(2, 4, 11, 10))
    low = decompose(p, (2, 3))
    mixed, rest = cell._mixed(p, low)
    torch.testing.assert_close(mixed, cell.low[0](low))
    torch.testing.assert_close(rest, cell.high[0](p.repeat(1, 4, 1, 1) - low))


def test_decompose_takes_every_radius_and_epsilon_with_the_range_as_guide() -> None:
    p = random(2, 3, 11, 10)
    guide = p.max(1, keepdim=True).values - p.min(1, keepdim=True).values
    expected = [guided_filter(guide, p, radius, eps) for radius in (2, 3) for eps in (1e-3, 1e-4)]
    torch.testing.assert_close(decompose(p, (2, 3)), torch.cat(expected, 1))


def test_shared_statistics_change_nothing() -> None:
    guide, source = random(1, 1, 8, 8), random(1, 2, 8, 8)
    for eps, out in zip(EPSILONS, guided_filters(guide, source, 2, EPSILONS), strict=True):
        assert torch.equal(out, guided_filter(guide, source, 2, eps))


def test_gradients_and_second_derivatives_are_right() -> None:
    guide, source = random(1, 1, 5, 4).requires_grad_(), random(1, 2, 5, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda g, p: guided_filter(g, p, 1, 0.01), (guide, source))
    assert torch.autograd.gradgradcheck(lambda g, p: guided_filter(g, p, 1, 0.01), (guide, source))


def test_the_output_is_the_projection_plus_what_the_bands_become() -> None:
    cell = FrequencyDecomposition(4, (2,)).double().eval()
    x = random(1, 4, 8, 9)
    p = cell.project(x)
    low = decompose(p, (2,))
    merged = cell.merge(torch.cat((cell.low(low), cell.high(torch.cat((p, p), 1) - low)), 1))
    torch.testing.assert_close(cell(x), p + merged)


@pytest.mark.parametrize("size", [(14, 14), (15, 32), (33, 14)])
def test_any_size_above_the_largest_window(size: tuple[int, int]) -> None:
    assert FrequencyDecomposition(4)(torch.rand(2, 4, *size)).shape == (2, 4, *size)


@pytest.mark.parametrize("size", [(13, 40), (40, 13), (1, 1)])
def test_frames_within_one_window_are_refused(size: tuple[int, int]) -> None:
    text = f"{size[0]} x {size[1]}"
    with pytest.raises(ConfigError, match=rf"radius \d must have more than \d+ pixels .*, got {text}"):
        FrequencyDecomposition(4, (6, 4))(torch.rand(1, 4, *size))


def test_batch_items_are_independent_in_evaluation() -> None:
    cell = FrequencyDecomposition(4, (2,)).double().eval()
    x = random(3, 4, 9, 9)
    torch.testing.assert_close(cell(x)[1:2], cell(x[1:2]))


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    cell = FrequencyDecomposition(4, (2, 3))
    cell(torch.randn(2, 4, 10, 10)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in cell.parameters())


def test_autocast_leaves_the_statistics_in_single_precision() -> None:
    guide, source = 20 + random(1, 1, 9, 9).float(), random(1, 2, 9, 9).float()
    expected = guided_filter(guide, source, 2, 1e-3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(guided_filter(guide, source, 2, 1e-3), expected)
    half = guided_filter(guide.bfloat16(), source.bfloat16(), 2, 1e-3)
    assert half.dtype == torch.bfloat16


def test_it_has_a_shape_on_the_meta_device() -> None:
    cell = FrequencyDecomposition(4, (2,)).to("meta")
    assert cell(torch.rand(1, 4, 9, 9, device="meta")).shape == (1, 4, 9, 9)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["channels first", "last"])
def test_many_channels_are_filtered_some_at_a_time(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    p = torch.randn(2, 2 * TOGETHER + 3, 16, 15, dtype=torch.double).contiguous(memory_format=layout)
    guide = p.amax(1, keepdim=True) - p.amin(1, keepdim=True)
    expected = [low for radius in (4, 6) for low in guided_filters(guide, p, radius, EPSILONS)]
    torch.testing.assert_close(decompose(p, (4, 6)), torch.cat(expected, 1), rtol=0, atol=1e-12)
