"""The losses of TMICS: L_D of the dominant and the fused output, L_C of the companion, L_ST over time, L_arc.

The weights of L_D and the alpha of L_ST are those of the authors' configuration. L_C and L_arc are not
published: their forms here are choices of this project.
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
"""(output, target), images (batch, 3, height, width) in [0, 1], to a scalar."""

COMPANION_LOSSES = ("fidelity", "charbonnier", "rain_prior")
ARC_LOSSES = ("fused", "branches", "all", "dna")


class Restored(Protocol):
    """What the network returns, as far as losses care: images (batch, 3, height, width)."""

    @property
    def output(self) -> Tensor: ...
    @property
    def dominant(self) -> Tensor: ...
    @property
    def companion(self) -> Tensor: ...


def fidelity(
    output: Tensor, target: Tensor, *, l1: float = 0.75, structure: float = 1.1, epsilon: float = 0.0
) -> Tensor:
    """L_D = l1 * mean |output - target| + structure * (1 - SSIM), SSIM over RGB; a scalar.

    With a positive `epsilon` the distance is `charbonnier`. Raises ConfigError for shapes that differ and crops under
    11x11 pixels.
    """
    distance = l1 * (charbonnier(output, target, epsilon=epsilon) if epsilon else (output - target).abs().mean())
    return distance + structure * (1 - ssim(output, target).mean()) if structure else distance


def charbonnier(output: Tensor, target: Tensor, *, epsilon: float = 1e-3) -> Tensor:
    """mean sqrt((output - target)^2 + epsilon^2), a scalar: L1, smooth at zero (Lai et al., CVPR 2017)."""
    return ((output - target).square() + epsilon**2).sqrt().mean()


def rain_prior(output: Tensor, rainy: Tensor) -> Tensor:
    """mean |d/dy (rainy - output)|: rain falls, so the removed layer changes little down an image; a scalar.

    The unidirectional sparsity of rain streaks (Jiang et al., FastDeRain, IEEE TIP 28(4), 2019), on the layer
    that the output takes away from the rainy frame. Images (batch, 3, height, width).
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
    """L_C by `kind`, a scalar: `fidelity`, `charbonnier`, or `rain_prior`.

    `fidelity` is L_D as `dominant` gives it, `rain_prior` adds mu * `rain_prior(output, rainy)` to it. Raises
    UnknownNameError for another kind, ConfigError for `rain_prior` without the `rainy` frame.
    """
    if kind == "fidelity":
        return dominant(output, target)
    if kind == "charbonnier":
        return charbonnier(output, target)
    if kind == "rain_prior":
        if rainy is None:
            raise ConfigError("the companion loss 'rain_prior' needs the rainy frame")
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
    """L_ST = mean(M |O_t - W(O_t-1)|), a scalar; M = exp(-alpha ||I_t - W(I_t-1)||^2) (Lai et al. 2018).

    Images (batch, 3, height, width) in [0, 1]; `flow` (batch, 2, height, width) in pixels from `frame` to
    `previous_frame`; W warps backward by it. M passes no gradient: else a learned flow would gain by matching
    nothing.
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
    """The loss of the upper level, by `mode`; a scalar.

    `fused` = L_D(output), `branches` = L_D(dominant) + eta L_C(companion), `all` = their sum, `dna` =
    L_D(dominant). Raises UnknownNameError for another mode.
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
