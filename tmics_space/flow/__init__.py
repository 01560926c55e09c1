"""Optical flow from each neighbouring frame to the reference: warping, the photometric loss, and flow providers.

`provider` says what a flow provider is; `pyramid` is the learned one, `classical` needs no training. `warping` warps
frames and computes the loss. Start with `provider`.
"""

from tmics_space.flow.classical import DenseInverseSearch
from tmics_space.flow.provider import FLOW_PROVIDERS, Described, Framewise, ZeroFlow, make_flow
from tmics_space.flow.pyramid import PyramidFlow
from tmics_space.flow.warping import photometric_loss, warp

__all__ = [
    "FLOW_PROVIDERS",
    "DenseInverseSearch",
    "Described",
    "Framewise",
    "PyramidFlow",
    "ZeroFlow",
    "make_flow",
    "photometric_loss",
    "warp",
]
