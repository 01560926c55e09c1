from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import torch
from numpy.typing import NDArray
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from nas.errors import ConfigError
from tmics_space.metrics.image import luminance, psnr, ssim

PHOTOGRAPHS = ["astronaut", "coffee", "chelsea", "rocket"]


def photograph(name: str) -> NDArray[np.float64]:
    return getattr(skimage.data, name)()[:180, :200] / 255.0


def rained(image: NDArray[np.float64]) -> NDArray[np.float64]:
    generator = np.random.default_rng(0)
    streaks = np.maximum(generator.normal(0, 0.15, (1, *image.shape[1:])), 0)
    return np.clip(image + streaks + generator.normal(0, 0.03, image.shape), 0, 1)


def tensor(image: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, -1, 0)))


def peer_ssim(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return structural_similarity(
        a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0, channel_axis=-1
    )


@pytest.fixture(params=PHOTOGRAPHS)
def pair(request: pytest.FixtureRequest) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    clean = photograph(request.param)
    return rained(clean), clean


def test_point_11_luminance_is_matlabs(pair: tuple[NDArray[np.float64], NDArray[np.float64]]) -> None:
    ours = luminance(tensor(pair[0]))
    assert ours.shape == (1, *pair[0].shape[:2])
    np.testing.assert_allclose(ours[0].numpy() * 255, rgb2ycbcr(pair[0])[..., 0], atol=1e-10)


def test_luminance_of_black_white_and_the_primaries() -> None:
    colours = torch.tensor([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]).double()
    expected = torch.tensor([16, 235, 81.481, 144.553, 40.966]).double()
    torch.testing.assert_close(luminance(colours[..., None, None]).flatten() * 255, expected)


def test_point_11_psnr_is_scikit_images(pair: tuple[NDArray[np.float64], NDArray[np.float64]]) -> None:
    a, b = pair
    expected = peak_signal_noise_ratio(b, a, data_range=1.0)
    assert psnr(tensor(a), tensor(b)).item() == pytest.approx(expected, abs=1e-9)
    assert psnr(tensor(a).float(), tensor(b).float()).item() == pytest.approx(expected, abs=1e-4)


def test_point_11_ssim_is_scikit_images(pair: tuple[NDArray[np.float64], NDArray[np.float64]]) -> None:
    a, b = pair
    assert ssim(tensor(a), tensor(b)).item() == pytest.approx(peer_ssim(a, b), abs=1e-9)
    assert ssim(tensor(a).float(), tensor(b).float()).item() == pytest.approx(peer_ssim(a, b), abs=1e-5)


def test_point_11_both_on_luminance_are_scikit_images(pair: tuple[NDArray[np.float64], NDArray[np.float64]]) -> None:
    a, b = (rgb2ycbcr(image)[..., :1] / 255 for image in pair)
    ours, truth = luminance(tensor(pair[0])), luminance(tensor(pair[1]))
    assert psnr(ours, truth).item() == pytest.approx(peak_signal_noise_ratio(b, a, data_range=1.0), abs=1e-9)
    assert ssim(ours, truth).item() == pytest.approx(peer_ssim(a, b), abs=1e-9)


def test_rounding_and_border_come_before_scoring(
    pair: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> None:
    a, b = ((image * 255).round().astype(np.uint8)[7:-7, 7:-7] for image in pair)
    ours = psnr(tensor(pair[0]), tensor(pair[1]), border=7, rounded=True).item()
    assert ours == pytest.approx(peak_signal_noise_ratio(b, a), abs=1e-9)
    similarity = ssim(tensor(pair[0]), tensor(pair[1]), border=7, rounded=True).item()
    assert similarity == pytest.approx(peer_ssim(a / 255.0, b / 255.0), abs=1e-9)


def test_psnr_of_a_constant_difference_and_of_no_difference() -> None:
    a = torch.full((2, 3, 4, 5), 0.25, dtype=torch.float64)
    torch.testing.assert_close(psnr(a, a + 0.1), torch.full((2,), 20.0).double())
    assert psnr(a, a).isinf().all()


def test_ssim_of_flat_images_is_the_brightness_term() -> None:
    a, b = (torch.full((1, 11, 11), value, dtype=torch.float64) for value in (0.2, 0.7))
    expected = (2 * 0.2 * 0.7 + 1e-4) / (0.2**2 + 0.7**2 + 1e-4)
    assert ssim(a, b).item() == pytest.approx(expected, abs=1e-12)
    assert ssim(a, a).item() == pytest.approx(1, abs=1e-12)


def test_ssim_of_a_negative_is_negative() -> None:
    a = torch.rand(1, 30, 30, dtype=torch.float64)
    assert ssim(a, 1 - a).item() < -0.5


def test_images_of_a_batch_are_scored_apart() -> None:
    a, b = torch.rand(2, 2, 3, 3, 14, 17, dtype=torch.float64)
    for score in (psnr, ssim):
        together = score(a, b)
        assert together.shape == (2, 3)
        apart = torch.stack([score(x, y) for x, y in zip(a.flatten(0, 1), b.flatten(0, 1), strict=True)])
        torch.testing.assert_close(together.flatten(), apart)


def test_memory_format_does_not_matter() -> None:
    a, b = torch.rand(2, 4, 3, 16, 20, dtype=torch.float64)
    mixed = ssim(a.to(memory_format=torch.channels_last), b)
    torch.testing.assert_close(mixed, ssim(a, b))


def test_ssim_can_be_differentiated_twice() -> None:
    a, b = (torch.rand(1, 2, 12, 11, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(ssim, (a, b))
    assert torch.autograd.gradgradcheck(ssim, (a, b), fast_mode=True)


def test_half_precision_and_autocast_are_scored_in_single() -> None:
    a, b = torch.rand(2, 3, 40, 40)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ssim(a, b) == ssim(a, b).float()
        inside = ssim(a, b)
    torch.testing.assert_close(inside, ssim(a, b), rtol=0, atol=0)
    halves = a.bfloat16(), b.bfloat16()
    torch.testing.assert_close(ssim(*halves), ssim(*(half.float() for half in halves)), rtol=0, atol=0)


def test_bad_images_are_named() -> None:
    image = torch.zeros(3, 20, 20)
    with pytest.raises(ConfigError, match=r"\(\.\.\., 3, height, width\), got \(1, 20, 20\)"):
        luminance(image[:1])
    with pytest.raises(ConfigError, match=r"got \(3, 20, 20\) and \(3, 19, 20\)"):
        psnr(image, image[:, 1:])
    with pytest.raises(ConfigError, match=r"floating point .* torch\.uint8"):
        psnr(image.byte(), image.byte())
    with pytest.raises(ConfigError, match="at least 11x11 pixels, got 10x20"):
        ssim(image[:, :10], image[:, :10])
    with pytest.raises(ConfigError, match=r"border must .* 20x20 .*got 10"):
        psnr(image, image, border=10)
