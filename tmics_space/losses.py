"""The losses of TMICS: L_D of the dominant and the fused output, L_C of the companion, L_ST over time, L_arc.

The weights of L_D and the alpha of L_ST come from the authors' configuration. L_C and L_arc are not published; this
project chose their forms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from nas.errors import ConfigError, UnknownNameError
from tmics_space.flow import warp
from tmics_space.metrics.image import ssim

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Maps (output, target), images `(batch, 3, height, width)` in [0, 1], to a scalar."""

COMPANION_LOSSES = ("fidelity", "charbonnier", "rain_prior")
ARC_LOSSES = ("fused", "branches", "all", "dna")


class Restored(Protocol):
    """The outputs of a network that losses read: images `(batch, 3, height, width)`."""

    @property
    def output(self) -> Tensor: ...
    @property
    def dominant(self) -> Tensor: ...
    @property
    def companion(self) -> Tensor: ...


def fidelity(
    output: Tensor,
    target: Tensor,
    *,
    l1: float = 0.75,
    structure: float = 1.1,
    logarithm: float = 0.0,
    epsilon: float = 0.0,
) -> Tensor:
    """Compute L_D = l1 * mean |output - target| + structure * (1 - SSIM) + logarithm * `log_error`; SSIM over RGB.

    Args:
        output: images, `(batch, 3, height, width)` in [0, 1].
        target: the true images, of the same shape.
        l1: weight of the distance.
        structure: weight of the structural term.
        logarithm: weight of the logarithmic term.
        epsilon: if positive, the distance is `charbonnier` with this epsilon.

    Returns:
        A scalar.

    Raises:
        ConfigError: shapes differ, or images are smaller than 11x11 pixels.
    """
    distance = l1 * (charbonnier(output, target, epsilon=epsilon) if epsilon else (output - target).abs().mean())
    if structure:
        distance = distance + structure * (1 - ssim(output, target).mean())
    return distance + logarithm * log_error(output, target) if logarithm else distance


def log_error(output: Tensor, target: Tensor) -> Tensor:
    """Compute mean log(1 + 10^4 MSE) over images, a scalar: an image counts by the relative change of its error.

    Under a mean of distances, images with heavy rain outweigh those with light rain by the ratio of their errors. PSNR
    is -10 log10(MSE). An image above 40 dB counts less and less, so those without rain do not dominate.

    Args:
        output: images, `(batch, 3, height, width)` in [0, 1].
        target: the true images, of the same shape.

    References:
        Chen et al., "HINet", CVPR Workshops 2021 (PSNR as a loss, without the constant).
    """
    return (1e4 * (output - target).square().mean((1, 2, 3))).log1p().mean()


def charbonnier(output: Tensor, target: Tensor, *, epsilon: float = 1e-3) -> Tensor:
    """Compute mean sqrt((output - target)^2 + epsilon^2), a scalar: an L1 distance that is smooth at zero.

    References:
        Lai et al., "Deep Laplacian Pyramid Networks", CVPR 2017 (Charbonnier loss).
    """
    return ((output - target).square() + epsilon**2).sqrt().mean()


def rain_prior(output: Tensor, rainy: Tensor) -> Tensor:
    """Compute mean |d/dy (rainy - output)|, a scalar: along a falling streak, the rain layer changes little.

    Args:
        output: images, `(batch, 3, height, width)`.
        rainy: the rainy images, of the same shape.

    References:
        Jiang et al., "FastDeRain", IEEE TIP 28(4), 2019 (unidirectional sparsity of rain streaks).
    """
    return torch.diff(rainy - output, dim=-2).abs().mean()


def companion_loss(
    kind: str,
    output: Tensor,
    target: Tensor,
    *,
    rainy: Tensor | None = None,
    mu: float = 0.1,
    dominant: Loss = fidelity,
) -> Tensor:
    """Compute L_C, the loss of the companion branch.

    Args:
        kind: `fidelity` (L_D), `charbonnier`, or `rain_prior` (L_D + mu * `rain_prior(output, rainy)`).
        output: images, `(batch, 3, height, width)` in [0, 1].
        target: the true images.
        rainy: the rainy images; only `rain_prior` needs them.
        mu: weight of the rain prior.
        dominant: computes L_D.

    Returns:
        A scalar.

    Raises:
        UnknownNameError: `kind` is unknown.
        ConfigError: `rain_prior` gets no `rainy` images.
    """
    if kind == "fidelity":
        return dominant(output, target)
    if kind == "charbonnier":
        return charbonnier(output, target)
    if kind == "rain_prior":
        if rainy is None:
            raise ConfigError("the companion loss 'rain_prior' must get the rainy frame, got None. Pass `rainy`")
        return dominant(output, target) + mu * rain_prior(output, rainy)
    raise UnknownNameError("companion loss", kind, COMPANION_LOSSES)


def temporal_loss(
    output: Tensor,
    previous_output: Tensor,
    frame: Tensor,
    previous_frame: Tensor,
    flow: Tensor,
    *,
    alpha: float = 50.0,
) -> Tensor:
    """Compute L_ST = mean(M |O_t - W(O_t-1)|) with M = exp(-alpha ||I_t - W(I_t-1)||^2).

    W warps backward by `flow`. M passes no gradient: otherwise a learned flow could lower the loss by mismatches.

    Args:
        output: O_t, `(batch, 3, height, width)` in [0, 1].
        previous_output: O_t-1, of the same shape.
        frame: I_t, of the same shape.
        previous_frame: I_t-1, of the same shape.
        flow: from `frame` to `previous_frame`, `(batch, 2, height, width)` in pixels.
        alpha: steepness of M.

    Returns:
        A scalar.

    References:
        Lai et al., "Learning Blind Video Temporal Consistency", ECCV 2018 (short-term temporal loss).
    """
    with torch.no_grad():
        mismatch = (frame - warp(previous_frame, flow)).square().sum(dim=1, keepdim=True)
        visibility = torch.exp(-alpha * mismatch)
    return (visibility * (output - warp(previous_output, flow)).abs()).mean()


def arc_loss(
    mode: str,
    restored: Restored,
    target: Tensor,
    *,
    dominant: Loss = fidelity,
    companion: Loss = fidelity,
    eta: float = 1.0,
) -> Tensor:
    """Compute the loss of the upper level.

    Args:
        mode: `fused` is L_D(output), `branches` is L_D(dominant) + eta L_C(companion), `all` is their sum, `dna` is
            L_D(dominant).
        restored: the outputs of a network.
        target: the true images, `(batch, 3, height, width)` in [0, 1].
        dominant: computes L_D.
        companion: computes L_C.
        eta: weight of L_C.

    Returns:
        A scalar.

    Raises:
        UnknownNameError: `mode` is unknown.
    """
    if mode not in ARC_LOSSES:
        raise UnknownNameError("arc loss", mode, ARC_LOSSES)
    terms = []
    if mode in ("fused", "all"):
        terms.append(dominant(restored.output, target))
    if mode in ("branches", "all", "dna"):
        terms.append(dominant(restored.dominant, target))
    if mode in ("branches", "all"):
        terms.append(eta * companion(restored.companion, target))
    return torch.stack(terms).sum()
