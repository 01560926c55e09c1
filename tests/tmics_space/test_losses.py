from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy.ndimage import shift
from skimage.metrics import structural_similarity
from torch import Tensor

from nas.errors import ConfigError, UnknownNameError
from tmics_space.losses import (
    ARC_LOSSES,
    COMPANION_LOSSES,
    arc_loss,
    charbonnier,
    companion_loss,
    fidelity,
    rain_prior,
    temporal_loss,
)


class Output(NamedTuple):
    output: Tensor
    dominant: Tensor
    companion: Tensor


def images(count: int, *, size: tuple[int, int] = (13, 12), batch: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return list(torch.rand(count, batch, 3, *size, generator=generator, dtype=torch.float64))


def one_minus_ssim(a: Tensor, b: Tensor) -> float:
    values = [
        structural_similarity(
            x.numpy(),
            y.numpy(),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
            channel_axis=0,
        )
        for x, y in zip(a, b, strict=True)
    ]
    return 1 - float(np.mean(values))


def by_hand(a: Tensor, b: Tensor) -> float:
    return 0.75 * float(np.abs(a.numpy() - b.numpy()).mean()) + 1.1 * one_minus_ssim(a, b)


def test_fidelity_is_three_quarters_l1_and_eleven_tenths_of_what_ssim_lacks() -> None:
    a, b = images(2)
    assert fidelity(a, b).item() == pytest.approx(by_hand(a, b), abs=1e-12)
    assert fidelity(a, b, l1=1, structure=0).item() == pytest.approx((a - b).abs().mean().item())
    assert fidelity(a, b, l1=0, structure=1).item() == pytest.approx(one_minus_ssim(a, b), abs=1e-12)
    smooth = float(np.sqrt((a.numpy() - b.numpy()) ** 2 + 0.01).mean())
    assert fidelity(a, b, l1=2, structure=0, epsilon=0.1).item() == pytest.approx(2 * smooth, abs=1e-12)


def test_the_logarithm_weighs_each_image_by_the_relative_change_of_its_error() -> None:
    target = torch.rand(2, 3, 12, 12, dtype=torch.float64)
    output = (target + torch.tensor([0.01, 0.2], dtype=torch.float64).view(2, 1, 1, 1)).requires_grad_()
    loss = fidelity(output, target, l1=0, structure=0, logarithm=2)
    assert loss.item() == pytest.approx(math.log(2) + math.log(401))
    (gradient,) = torch.autograd.grad(loss, output)
    pixels = 3 * 12 * 12
    for image, error in zip(gradient, (0.01, 0.2), strict=True):
        assert image.flatten().tolist() == pytest.approx([2 * error / (error**2 + 1e-4) / pixels] * pixels)


def test_fidelity_vanishes_at_the_target_and_falls_towards_it() -> None:
    a, b = images(2)
    losses = [fidelity(torch.lerp(a, b, t), b).item() for t in (0, 0.25, 0.5, 0.75, 1)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == pytest.approx(0, abs=1e-12)


def test_descending_fidelity_restores_the_target() -> None:
    target = images(1)[0]
    image = target.clone().add(0.2 * torch.randn(target.shape, generator=torch.Generator().manual_seed(1)))
    image = image.requires_grad_()
    optimizer = torch.optim.Adam([image], lr=0.01)
    start = fidelity(image, target).item()
    for _ in range(60):
        optimizer.zero_grad()
        loss = fidelity(image, target)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2 * start


def test_crops_under_the_window_are_an_error() -> None:
    a, b = images(2, size=(11, 10))
    with pytest.raises(ConfigError, match="at least 11x11 pixels, got 11x10"):
        fidelity(a, b)
    assert fidelity(*images(2, size=(11, 11))).ndim == 0


def test_charbonnier_is_its_formula() -> None:
    a, b = images(2)
    expected = np.sqrt((a.numpy() - b.numpy()) ** 2 + 1e-6).mean()
    assert charbonnier(a, b).item() == pytest.approx(expected, abs=1e-14)
    assert charbonnier(a, a).item() == pytest.approx(1e-3)
    assert charbonnier(a, a, epsilon=0.5).item() == pytest.approx(0.5)


def test_rain_prior_is_the_mean_vertical_difference_of_the_removed_layer() -> None:
    clean, rainy = images(2)
    layer = rainy.numpy() - clean.numpy()
    expected = np.abs(layer[:, :, 1:] - layer[:, :, :-1]).mean()
    assert rain_prior(clean, rainy).item() == pytest.approx(expected, abs=1e-14)


def test_rain_prior_lets_vertical_streaks_go_and_nothing_else() -> None:
    clean = images(1)[0]
    streaks = torch.zeros_like(clean)
    streaks[..., 5] = 0.3
    assert rain_prior(clean, clean + streaks).item() == pytest.approx(0, abs=1e-14)
    lying = streaks[..., :12, :].transpose(-1, -2)
    assert rain_prior(clean[..., :12, :], clean[..., :12, :] + lying).item() > 0.01


def test_companion_losses() -> None:
    a, b, rainy = images(3)
    assert companion_loss("fidelity", a, b).item() == pytest.approx(by_hand(a, b))
    assert companion_loss("charbonnier", a, b).item() == charbonnier(a, b).item()
    expected = by_hand(a, b) + 0.3 * rain_prior(a, rainy).item()
    assert companion_loss("rain_prior", a, b, rainy=rainy, mu=0.3).item() == pytest.approx(expected)
    only_l1 = partial(fidelity, structure=0.0)
    found = companion_loss("rain_prior", a, b, rainy=rainy, mu=0, dominant=only_l1)
    assert found.item() == pytest.approx(0.75 * (a - b).abs().mean().item())
    with pytest.raises(ConfigError, match="'rain_prior' must get the rainy frame"):
        companion_loss("rain_prior", a, b)
    with pytest.raises(UnknownNameError, match=r"companion loss 'charbonier' \(did you mean 'charbonnier'"):
        companion_loss("charbonier", a, b)
    assert COMPANION_LOSSES == ("fidelity", "charbonnier", "rain_prior")


def test_temporal_loss_follows_its_formula() -> None:
    output, previous_output, frame, previous = images(4, size=(9, 8))
    previous = frame + 0.2 * (previous - 0.5)
    flow = torch.tensor([[1.0, -2.0], [0.5, 0.25]], dtype=torch.float64)[..., None, None].expand(2, 2, 9, 8)
    total = 0.0
    for item, (u, v) in enumerate(((1.0, -2.0), (0.5, 0.25))):

        def warped(image: Tensor, u: float = u, v: float = v, item: int = item) -> np.ndarray:
            return np.stack([shift(plane, (-v, -u), order=1, mode="nearest") for plane in image[item].numpy()])

        mask = np.exp(-50 * ((frame[item].numpy() - warped(previous)) ** 2).sum(axis=0))
        total += (mask * np.abs(output[item].numpy() - warped(previous_output))).mean() / 2
    found = temporal_loss(output, previous_output, frame, previous, flow)
    assert found.item() == pytest.approx(total, rel=1e-10)


def test_temporal_loss_of_flicker_and_of_change() -> None:
    frame = torch.full((1, 3, 4, 4), 0.5, dtype=torch.float64)
    still = torch.zeros(1, 2, 4, 4, dtype=torch.float64)
    flicker = temporal_loss(frame + 0.1, frame, frame, frame, still)
    assert flicker.item() == pytest.approx(0.1)
    changed = temporal_loss(frame + 0.1, frame, frame + 0.1, frame, still)  # ||.||^2 = 3 x 0.01
    assert changed.item() == pytest.approx(0.1 * np.exp(-50 * 0.03))
    assert temporal_loss(frame + 0.1, frame, frame + 0.1, frame, still, alpha=0).item() == pytest.approx(0.1)


def test_a_flow_cannot_lower_the_temporal_loss_by_mismatching_the_frames() -> None:
    output, previous_output, frame, previous = images(4, batch=1)
    flow = torch.full((1, 2, 13, 12), 0.3, dtype=torch.float64, requires_grad=True)
    flat = torch.full_like(previous_output, 0.5)  # warping it changes nothing: only M depends on the flow
    ours = torch.autograd.grad(temporal_loss(output, flat, frame, previous, flow), flow)[0]
    assert ours.abs().max() < 1e-12
    moved = torch.autograd.grad(temporal_loss(output, previous_output, frame, frame, flow), flow)[0]
    assert moved.abs().max() > 0


@pytest.mark.parametrize("eta", [1.0, 0.25])
def test_arc_losses_are_their_sums(eta: float) -> None:
    fused, dominant, companion, target = images(4)
    found = {
        mode: arc_loss(mode, Output(fused, dominant, companion), target, companion=charbonnier, eta=eta).item()
        for mode in ARC_LOSSES
    }
    branches = by_hand(dominant, target) + eta * charbonnier(companion, target).item()
    assert found == {
        "fused": pytest.approx(by_hand(fused, target)),
        "branches": pytest.approx(branches),
        "all": pytest.approx(by_hand(fused, target) + branches),
        "dna": pytest.approx(by_hand(dominant, target)),
    }


def test_arc_loss_by_default_weighs_equal_branches_equally() -> None:
    image, target = images(2)
    one = fidelity(image, target).item()
    for mode, terms in {"fused": 1, "branches": 2, "all": 3, "dna": 1}.items():
        assert arc_loss(mode, Output(image, image, image), target).item() == pytest.approx(terms * one)


def test_arc_loss_passes_gradients_only_to_what_it_names() -> None:
    target, *three = images(4)
    reached = {
        "fused": (True, False, False),
        "branches": (False, True, True),
        "all": (True, True, True),
        "dna": (False, True, False),
    }
    for mode, expected in reached.items():
        leaves = [image.clone().requires_grad_() for image in three]
        arc_loss(mode, Output(*leaves), target).backward()
        assert tuple(leaf.grad is not None for leaf in leaves) == expected


def test_an_unknown_arc_loss_suggests_the_nearest() -> None:
    a, b = images(2)
    with pytest.raises(UnknownNameError, match=r"arc loss 'fuse' \(did you mean 'fused'"):
        arc_loss("fuse", Output(a, a, a), b)


def test_gradients_are_those_of_finite_differences() -> None:
    a, b, c, target = (image.requires_grad_() for image in images(4, size=(11, 12), batch=1))
    flow = torch.full((1, 2, 11, 12), 0.3, dtype=torch.float64)
    frame, previous = a.detach(), (a + 0.05 * b).detach()

    def check(loss: object, *inputs: Tensor) -> bool:
        return torch.autograd.gradcheck(loss, inputs, fast_mode=True)

    assert check(fidelity, a, target)
    assert check(charbonnier, a, target)
    assert check(rain_prior, a, target)
    assert check(partial(companion_loss, "rain_prior", rainy=c.detach()), a, target.detach())
    assert check(lambda x, y: temporal_loss(x, y, frame, previous, flow), b, c)
    for mode in ARC_LOSSES:
        assert check(
            lambda x, y, z, mode=mode: arc_loss(mode, Output(x, y, z), target.detach(), companion=charbonnier), a, b, c
        )


def test_second_derivatives_exist_for_hypergradients() -> None:
    a, b, c, target = (image.requires_grad_() for image in images(4, size=(11, 11), batch=1))
    loss = partial(arc_loss, "all", target=target.detach())
    assert torch.autograd.gradgradcheck(lambda x, y, z: loss(Output(x, y, z)), (a, b, c), fast_mode=True)
