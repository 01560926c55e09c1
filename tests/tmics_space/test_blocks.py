from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nas.errors import ConfigError, UnknownNameError
from nas.kernels.activation import SLOPE, PReLU
from nas.kernels.depthwise import DepthwiseConv2d
from tmics_space.blocks import (
    Attention,
    ChannelGate,
    Residual,
    SpatialGate,
    conv,
    depthwise_enhancement,
    depthwise_residual,
    he,
    head,
    normalization,
    zeroed,
)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("channels", [16, 32, 96])
@pytest.mark.parametrize("kernel", [3, 5])
def test_point_01_parameters_of_the_light_residual_blocks(channels: int, kernel: int) -> None:
    c = channels
    assert count(depthwise_residual(c, kernel)) == c * c + (kernel**2 + 9 + 2) * c + 1
    assert count(depthwise_enhancement(c)) == c * c + (25 + 9 + 9 + 2) * c + 1


def test_depthwise_convolutions_are_fast_ones() -> None:
    assert isinstance(conv(4, 4, 3, dilation=2, groups=4), DepthwiseConv2d)
    assert type(conv(4, 4, 3)) is nn.Conv2d


def test_point_01_parameters_of_the_head() -> None:
    assert count(head(96)) == 42_820
    assert count(head(32, 2)) == 9 * 32 * 16 + 16 + 1 + 9 * 16 * 12 + 12


def test_a_head_makes_squares_of_the_image_from_pixels() -> None:
    x = torch.randn(1, 6, 4, 5)
    layers = head(6, 2)
    channels = layers[:-1](x)
    assert layers(x).shape == (1, 3, 8, 10)
    assert torch.equal(layers(x)[:, 1, 1::2, ::2], channels[:, 4 + 2])


@pytest.mark.parametrize(
    "block",
    [
        depthwise_residual(4),
        depthwise_residual(4, 7, 2),
        depthwise_enhancement(4),
        Attention(4, ChannelGate(5), 5),
        Attention(4, SpatialGate(7), 7),
    ],
    ids=["residual", "residual 7 dilated 2", "enhancement", "channel attention 5", "spatial attention 7"],
)
@pytest.mark.parametrize("size", [(5, 7), (1, 1), (16, 3)])
def test_blocks_keep_any_size(block: nn.Module, size: tuple[int, int]) -> None:
    assert block(torch.rand(2, 4, *size)).shape == (2, 4, *size)


@pytest.mark.parametrize("gate", [ChannelGate, SpatialGate])
def test_rows_of_attention_neither_shrink_nor_blow_up_what_they_are_shown(gate: type[nn.Module]) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 32, 24, 24)
    after = nn.Sequential(*(Attention(32, gate()) for _ in range(8)))(x)
    assert 0.5 < after.std() / x.std() < 5  # 0.0009 by torch's own initialization


def test_he_draws_weights_of_the_published_deviation() -> None:
    torch.manual_seed(0)
    layer = he(conv(32, 64))
    assert layer.weight.std().item() == pytest.approx((2 / (1 + 0.25**2) / (32 * 9)) ** 0.5, rel=0.02)
    assert PReLU().weight.item() == nn.PReLU().weight.item() == SLOPE == 0.25


def test_a_residual_block_adds_its_body() -> None:
    x = torch.rand(1, 2, 3, 3)
    assert torch.equal(Residual(nn.Identity(), nn.ReLU())(x), 2 * x)
    assert torch.equal(Residual(zeroed(conv(2, 2)))(x), x)


def test_the_light_blocks_see_as_far_as_their_kernels() -> None:
    def reach(block: nn.Module) -> int:
        """How far from the centre an impulse is felt."""
        for parameter in block.parameters():
            nn.init.constant_(parameter, 1.0)
        x = torch.zeros(1, 1, 31, 31)
        x[..., 15, 15] = 1
        felt = (block.eval()(x) - block(torch.zeros_like(x)))[0, 0].abs() > 1e-6
        return int(felt.nonzero().sub(15).abs().max())

    assert reach(depthwise_residual(1, 3, 1)) == 1 + 2
    assert reach(depthwise_residual(1, 5, 2)) == 4 + 2
    assert reach(depthwise_enhancement(1)) == 4 + 2 + 2


@pytest.mark.parametrize("gate", [ChannelGate(), SpatialGate()], ids=["channel", "spatial"])
def test_attention_follows_its_formula(gate: nn.Module) -> None:
    torch.manual_seed(0)
    block = Attention(4, gate, 3).double()
    with torch.no_grad():
        block.activation.weight.fill_(0.3)
    x = torch.randn(2, 4, 6, 5, dtype=torch.float64)

    def prelu(t: torch.Tensor) -> torch.Tensor:
        return torch.where(t > 0, t, 0.3 * t)

    y = F.conv2d(x, block.first.weight, padding=1)
    z = F.conv2d(prelu(y), block.second.weight, padding=1)
    torch.testing.assert_close(block(x), prelu(gate(z) * z + y))


def test_the_channel_gate_convolves_the_means_across_channels() -> None:
    gate = ChannelGate(3).double()
    x = torch.randn(2, 5, 4, 3, dtype=torch.float64)
    weight = gate.conv.weight.flatten()
    means = F.pad(x.mean((2, 3)), (1, 1))
    for channel in range(5):
        expected = torch.sigmoid(means[:, channel : channel + 3] @ weight)
        torch.testing.assert_close(gate(x)[:, channel, 0, 0], expected)


def test_the_spatial_gate_sees_the_largest_and_the_mean_channel() -> None:
    gate = SpatialGate(1).double()
    x = torch.randn(2, 5, 4, 3, dtype=torch.float64)
    largest, mean = gate.conv.weight.flatten()
    expected = torch.sigmoid(largest * x.max(1, keepdim=True).values + mean * x.mean(1, keepdim=True))
    torch.testing.assert_close(gate(x), expected)


@pytest.mark.parametrize("kernel", [0, 2, -3])
def test_a_kernel_without_a_centre_is_refused(kernel: int) -> None:
    with pytest.raises(ConfigError, match=f"kernel must be an odd positive .*got {kernel}"):
        conv(3, 3, kernel)
    with pytest.raises(ConfigError, match=f"got {kernel}"):
        ChannelGate(kernel)


@pytest.mark.parametrize("name", ["group", "batch"])
def test_norms_have_no_parameters_and_bring_to_one_scale(name: str) -> None:
    norm = normalization(name, 4)
    out = norm(5 + 3 * torch.randn(4, 4, 8, 8))
    assert count(norm) == 0
    assert out.mean().abs() < 1e-5
    assert (out.std() - 1).abs() < 1e-2


def test_the_norm_none_is_nothing() -> None:
    x = torch.rand(1, 4, 2, 2)
    assert normalization("none", 4)(x) is x


def test_an_unknown_norm_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'group'"):
        normalization("groups", 4)
