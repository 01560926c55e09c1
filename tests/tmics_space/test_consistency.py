from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from tmics_space.alignment import OpticalFlow
from tmics_space.consistency import PhotometricConsistency, Trust
from tmics_space.flow import ZeroFlow


def masks(centre: Tensor, *neighbours: Tensor, scale: int = 1) -> Tensor:
    found: Tensor = PhotometricConsistency(scale)(centre, torch.stack(neighbours, 1))
    return found


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("size", [(24, 20), (14, 18), (2, 2)])
def test_equal_images_are_consistent(size: tuple[int, int], scale: int) -> None:
    images = torch.rand(2, 3, *size)
    found = masks(images, images, images, scale=scale)
    assert torch.equal(found, torch.ones(2, 2, size[0] // scale, size[1] // scale))
    assert torch.equal(Trust(scale)(images, torch.stack((images, images), 1)), found)


@pytest.mark.parametrize("scale", [1, 2])
def test_a_mask_follows_its_formula(scale: int) -> None:
    """A constant difference d in each colour gives exp(-50 · 3 d²); each neighbour has its own mask."""
    centre = torch.rand(1, 3, 16, 16, dtype=torch.float64) / 2
    differences = (0.05, -0.1)
    found = masks(centre, *(centre + d for d in differences), scale=scale)
    for mask, d in zip(found[0], differences, strict=True):
        torch.testing.assert_close(mask, torch.full_like(mask, math.exp(-50 * 3 * d**2)))


def test_an_occluder_that_moved_is_masked_where_it_was_and_where_it_is() -> None:
    centre, neighbour = (torch.full((1, 3, 48, 96), 0.3) for _ in range(2))
    centre[..., 12:36, 12:36] = 0.8
    neighbour[..., 12:36, 60:84] = 0.8
    (mask,) = masks(centre, neighbour)[0]
    assert mask[20:28, 20:28].max() < 1e-3
    assert mask[20:28, 68:76].max() < 1e-3
    assert mask[:, 45:51].min() == 1


def test_a_thin_streak_hardly_lowers_the_mask() -> None:
    centre = torch.full((1, 3, 48, 48), 0.3)
    rainy = centre.clone()
    rainy[..., 12:36, 24:26] += 0.3  # 24 x 2 pixels
    assert masks(centre, rainy).min() > 0.6
    wide = centre.clone()
    wide[..., 12:36, 12:36] += 0.3
    assert masks(centre, wide).min() < 1e-5


def test_the_fusion_sees_the_masks_of_all_neighbours_in_order() -> None:
    seen: list[Tensor] = []
    ofm = OpticalFlow(4, ZeroFlow(), 5, scale=2, consistency=PhotometricConsistency(2))
    ofm.merge.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    frames = torch.full((1, 5, 3, 16, 16), 0.3)
    frames[:, 3] += 0.1
    ofm(frames)
    assert seen[0].shape == (1, 5 * 12 + 4, 8, 8)
    found = seen[0][0, -4:].mean((1, 2))
    torch.testing.assert_close(found, torch.tensor([1, 1, math.exp(-1.5), 1]))


def test_masks_measure_the_flow_and_do_not_train_it() -> None:
    centre, neighbour = torch.rand(2, 1, 3, 8, 8)
    neighbour.requires_grad_()
    assert not masks(centre, neighbour).requires_grad
    assert not list(nn.Module.parameters(PhotometricConsistency()))
