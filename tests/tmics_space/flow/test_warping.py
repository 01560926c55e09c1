from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tmics_space.flow import photometric_loss, warp


def constant_flow(like: Tensor, u: float, v: float) -> Tensor:
    return like.new_tensor((u, v)).view(1, 2, 1, 1).expand(len(like), 2, *like.shape[2:])


def test_point_08_zero_flow_is_the_identity_bit_for_bit() -> None:
    image = torch.rand(2, 3, 17, 23)
    assert torch.equal(warp(image, torch.zeros(2, 2, 17, 23)), image)


@given(st.integers(-9, 9), st.integers(-9, 9))
def test_point_08_an_integer_translation_is_exact(u: int, v: int) -> None:
    image = torch.rand(2, 3, 20, 31, generator=torch.Generator().manual_seed(0))
    rows = (torch.arange(20) + v).clamp(0, 19)
    columns = (torch.arange(31) + u).clamp(0, 30)
    assert torch.equal(warp(image, constant_flow(image, u, v)), image[:, :, rows][..., columns])


@pytest.mark.parametrize("size", [(7, 9), (1, 9), (7, 1), (1, 1), (2, 64)])
def test_point_08_align_corners_is_true_and_the_border_is_repeated(size: tuple[int, int]) -> None:
    height, width = size
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, 2, height, width, dtype=torch.float64, generator=generator)
    flow = 4 * torch.randn(3, 2, height, width, dtype=torch.float64, generator=generator)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    positions = torch.stack((x + flow[:, 0], y + flow[:, 1]), 3)
    grid = 2 * positions / torch.tensor((max(width - 1, 1), max(height - 1, 1))) - 1
    expected = F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=True)
    torch.testing.assert_close(warp(image, flow), expected)


def test_point_08_every_batch_item_has_its_own_flow() -> None:
    image, flow = torch.rand(4, 3, 9, 8), torch.randn(4, 2, 9, 8)
    alone = torch.cat([warp(image[i : i + 1], flow[i : i + 1]) for i in range(4)])
    assert torch.equal(warp(image, flow), alone)
    flow[2] += 1
    assert [torch.equal(a, b) for a, b in zip(warp(image, flow), alone, strict=True)] == [True, True, False, True]


@pytest.mark.parametrize("height", [1, 31, 32, 71])
def test_tiles_of_rows_make_no_difference(height: int) -> None:
    """Without gradients, the CPU warps a few rows at a time."""
    image, flow = torch.rand(2, 3, height, 9), 40 * torch.randn(2, 2, height, 9)
    whole = warp(image, flow)
    with torch.no_grad():
        assert torch.equal(warp(image, flow), whole)


def test_half_a_pixel_is_the_mean_of_two() -> None:
    image = torch.rand(1, 1, 4, 5)
    across = (image[..., :-1] + image[..., 1:]) / 2
    torch.testing.assert_close(warp(image, constant_flow(image, 0.5, 0))[..., :-1], across)
    down = (image[..., :-1, :] + image[..., 1:, :]) / 2
    torch.testing.assert_close(warp(image, constant_flow(image, 0, 0.5))[..., :-1, :], down)


def test_gradients_and_second_derivatives_are_right() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 2, 4, 5, dtype=torch.float64, generator=generator).requires_grad_()
    flow = torch.randn(2, 2, 4, 5, dtype=torch.float64, generator=generator).requires_grad_()
    assert torch.autograd.gradcheck(warp, (image, flow))
    assert torch.autograd.gradgradcheck(warp, (image, flow))


def test_coordinates_keep_their_precision_in_half() -> None:
    image = torch.rand(1, 3, 4, 600, dtype=torch.bfloat16)
    flow = constant_flow(image, 3, 0)
    out = warp(image, flow)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out[..., :-3], image[..., 3:])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_a_diverged_flow_gives_no_crash(value: float) -> None:
    image = torch.rand(1, 3, 5, 5)
    flow = torch.zeros(1, 2, 5, 5)
    flow[0, 1, 2, 3] = value
    out = warp(image, flow)
    assert out.isnan().any() == (value != value)
    assert torch.equal(out[..., 4, :], image[..., 4, :])


def test_the_photometric_loss_is_charbonnier_and_total_variation() -> None:
    reference, warped = torch.rand(2, 3, 4, 5), torch.rand(2, 3, 4, 5)
    flow = torch.zeros(2, 2, 4, 5)
    difference = sum((d**2 + 1e-6) ** 0.5 for d in (reference - warped).flatten().tolist()) / reference.numel()
    assert photometric_loss(reference, warped, flow).item() == pytest.approx(difference)
    flow[0, 0, :, 2:] = 3.0  # a step of 3 pixels along 4 rows, of 40 flow vectors
    flow[1, 1, 1:, :] = -2.0  # a step of 2 pixels along 5 columns
    variation = (4 * 3 + 5 * 2) / 40
    assert photometric_loss(reference, warped, flow, 0.0).item() == pytest.approx(difference)
    assert photometric_loss(reference, warped, flow, 0.5).item() == pytest.approx(difference + 0.5 * variation)


def test_the_photometric_loss_is_smooth_at_equality_and_differentiable_twice() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 1, 3, 4, 4, dtype=torch.float64, generator=generator)
    flow = torch.randn(1, 2, 4, 4, dtype=torch.float64, generator=generator)
    inputs = tuple(t.requires_grad_() for t in (a, b, flow))
    assert torch.autograd.gradcheck(photometric_loss, inputs)
    assert torch.autograd.gradgradcheck(photometric_loss, inputs)
    photometric_loss(a, a.detach().clone(), flow).backward()
    assert a.grad is not None
    assert a.grad.isfinite().all()


def test_the_photometric_loss_of_one_pixel_is_finite() -> None:
    pixel = torch.rand(1, 3, 1, 1)
    assert photometric_loss(pixel, pixel, torch.zeros(1, 2, 1, 1)).item() == pytest.approx(1e-3)
