"""Optical flow from each neighbouring frame to the reference: warping, the photometric loss, and flow providers."""

from tmics_space.flow.classical import DenseInverseSearch
from tmics_space.flow.provider import Described, Framewise, ZeroFlow, flow_provider, flow_providers, make_flow
from tmics_space.flow.pyramid import PyramidFlow
from tmics_space.flow.warp import photometric_loss, warp

__all__ = [
    "DenseInverseSearch",
    "Described",
    "Framewise",
    "PyramidFlow",
    "ZeroFlow",
    "flow_provider",
    "flow_providers",
    "make_flow",
    "photometric_loss",
    "warp",
]
