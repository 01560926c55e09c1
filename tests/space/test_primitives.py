"""Structures, shapes and parameter counts of the usual candidate operations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nas.errors import ConfigError
from nas.space.operations import OperationSet, registered_operations
from nas.space.primitives import (
    DARTS,
    DARTS_EVALUATION,
    NAS_BENCH_201,
    DropPath,
    FactorizedReduce,
    Zero,
    conv_bn_relu,
    relu_conv_bn,
    skip_connect,
)

C = 6

# name: (parameters with affine batch norms, and what they lose without) in closed form
COUNTS = {
    "none": (0, 0),
    "max_pool_3x3": (0, 0),
    "avg_pool_3x3": (0, 0),
    "skip_connect": (0, 0),
    "sep_conv_3x3": (2 * (C * C + 9 * C) + 4 * C, 4 * C),
    "sep_conv_5x5": (2 * (C * C + 25 * C) + 4 * C, 4 * C),
    "dil_conv_3x3": (C * C + 9 * C + 2 * C, 2 * C),
    "dil_conv_5x5": (C * C + 25 * C + 2 * C, 2 * C),
    "nor_conv_1x1": (C * C + 2 * C, 2 * C),
    "nor_conv_3x3": (9 * C * C + 2 * C, 2 * C),
}
EVERY = DARTS | NAS_BENCH_201 | {"conv_bn_relu": conv_bn_relu}


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_sets_are_those_of_the_papers() -> None:
    separable = ["sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"]
    assert list(DARTS) == ["none", "max_pool_3x3", "avg_pool_3x3", "skip_connect", *separable]
    assert list(NAS_BENCH_201) == ["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"]
    assert OperationSet.of("darts") is DARTS
    assert OperationSet.of("nas-bench-201") is NAS_BENCH_201
    assert {"none", "skip_connect", "avg_pool", "max_pool", "sep_conv", "dil_conv"} < set(registered_operations())


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts(name: str) -> None:
    count, affine = COUNTS[name]
    make = EVERY[name]
    assert size(make(C)) == count
    assert size(make(C, affine=False)) == count - affine
    at_stride_2 = C * C + 2 * C if name == "skip_connect" else count
    assert size(make(C, stride=2)) == at_stride_2


def test_conv_counts() -> None:
    assert size(conv_bn_relu(C, kernel=5)) == 25 * C * C + 2 * C
    assert size(relu_conv_bn(C, kernel=1, out=5)) == 5 * C + 10
    assert size(FactorizedReduce(C, 5)) == 5 * C + 10


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("shape", [(8, 8), (7, 9), (5, 8), (1, 1)])
def test_shapes(name: str, shape: tuple[int, int]) -> None:
    x = torch.randn(2, C, *shape)
    for stride in (1, 2):
        y = EVERY[name](C, stride=stride)(x)
        assert y.shape == (2, C, *((n + stride - 1) // stride for n in shape))


@pytest.mark.parametrize("name", EVERY)
def test_gradients_reach_the_input(name: str) -> None:
    x = torch.randn(2, C, 6, 6, requires_grad=True)
    (gradient,) = torch.autograd.grad(EVERY[name](C, stride=2)(x).square().sum(), x)
    assert (gradient == 0).all() == (name == "none")


def test_order_of_relu_and_norm() -> None:
    x = torch.randn(4, C, 6, 6)
    assert (conv_bn_relu(C)(x) >= 0).all()
    before = relu_conv_bn(C, kernel=1)
    assert before(x).min() < 0
    assert torch.equal(before(x), before(x.relu()))


def test_separable_convolutions_by_hand() -> None:
    x = torch.randn(2, C, 7, 7).double()
    module = EVERY["dil_conv_3x3"](C).double()
    depthwise, pointwise = [m.weight for m in module if isinstance(m, nn.Conv2d)]
    y = torch.stack([dilated(x[:, c].relu(), depthwise[c, 0]) for c in range(C)], 1)
    y = torch.einsum("oc,bchw->bohw", pointwise[:, :, 0, 0], y)
    y = (y - y.mean((0, 2, 3), keepdim=True)) / (y.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(module(x), y)
    twice = EVERY["sep_conv_3x3"](C)
    assert [type(m).__name__ for m in twice] == ["ReLU", "Conv2d", "Conv2d", "BatchNorm2d"] * 2
    assert [m.stride for m in EVERY["sep_conv_5x5"](C, stride=2) if isinstance(m, nn.Conv2d)] == [
        (2, 2),
        (1, 1),
        (1, 1),
        (1, 1),
    ]


def dilated(image: Tensor, kernel: Tensor) -> Tensor:
    """Correlation of `(batch, height, width)` with a 3x3 kernel whose taps are two pixels apart."""
    height, width = image.shape[1:]
    padded = nn.functional.pad(image, (2, 2, 2, 2))
    return sum(
        kernel[i, j] * padded[:, 2 * i : 2 * i + height, 2 * j : 2 * j + width] for i in range(3) for j in range(3)
    )


def test_average_pooling_leaves_the_padding_out() -> None:
    ones = torch.ones(1, C, 4, 4)
    assert torch.equal(NAS_BENCH_201["avg_pool_3x3"](C)(ones), ones)


def test_poolings_are_normalized_in_darts_only() -> None:
    x = torch.rand(8, C, 8, 8) + 3
    for name in ("max_pool_3x3", "avg_pool_3x3"):
        y = DARTS[name](C, affine=True)(x)
        torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(C), atol=1e-4, rtol=0)
        assert DARTS[name](C, normalize=False)(x).min() >= 3
    assert NAS_BENCH_201["avg_pool_3x3"](C)(x).min() >= 3


@pytest.mark.parametrize("n", [6, 7])
def test_factorized_reduce_sees_even_and_odd_pixels(n: int) -> None:
    reduce = FactorizedReduce(1, 2).eval()
    nn.init.ones_(reduce.even.weight)
    nn.init.ones_(reduce.odd.weight)
    x = torch.arange(-5.0, n * n - 5).view(1, 1, n, n)
    even, odd = reduce(x)[0] * (1 + 1e-5) ** 0.5
    x = x.relu()
    torch.testing.assert_close(even, x[0, 0, ::2, ::2])
    torch.testing.assert_close(odd[: n // 2, : n // 2], x[0, 0, 1::2, 1::2])
    assert (odd[n // 2 :] == 0).all()
    assert (odd[:, n // 2 :] == 0).all()


def test_zero_keeps_a_gradient_of_zero() -> None:
    weight = torch.ones(1, requires_grad=True)
    Zero(2)(weight * torch.ones(1, 1, 4, 4)).sum().backward()
    assert weight.grad is not None
    assert weight.grad == 0


def test_bad_arguments_are_errors() -> None:
    for name in ("sep_conv_3x3", "dil_conv_3x3", "nor_conv_3x3", "avg_pool_3x3", "max_pool_3x3"):
        with pytest.raises(ConfigError, match=r"kernel .* odd .*got 4"):
            EVERY[name](C, kernel=4)
    with pytest.raises(ConfigError, match="'skip_connect' must be 1 or 2, got 3"):
        skip_connect(C, stride=3)


def test_drop_path_drops_whole_items_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    x = torch.ones(10_000, 2, 3, 3)
    dropped = DropPath(0.2)(x)
    kept = dropped[:, 0, 0, 0]
    assert torch.equal(dropped, kept.view(-1, 1, 1, 1).expand_as(x))
    torch.testing.assert_close(kept.unique(), torch.tensor([0.0, 1.25]))
    assert kept.mean() == pytest.approx(1, abs=5 * 0.5 / 100)  # five standard errors
    assert torch.equal(DropPath(0.2).eval()(x), x)


def test_the_rate_of_drop_path_grows_as_its_authors_have_it() -> None:
    """DARTS has `drop_path_prob * epoch / epochs`, with epochs from 0: the rate is never whole."""
    drop = DropPath(0.3)
    assert drop.p == 0.3
    for steps in (1, 3, 600):
        for step in {0, 1, steps // 2, steps - 1} - {steps}:
            drop.on_progress(step, steps)
            assert drop.p == pytest.approx(0.3 * step / steps, abs=1e-15)
    assert drop.p < 0.3


def test_the_sets_of_darts_differ_in_the_norms_behind_poolings() -> None:
    assert list(DARTS) == list(DARTS_EVALUATION)
    different = [name for name in DARTS if DARTS[name] is not DARTS_EVALUATION[name]]
    assert different == ["max_pool_3x3", "avg_pool_3x3"]
    assert all(any(isinstance(m, nn.BatchNorm2d) for m in DARTS[name](C).modules()) for name in different)
    assert not any(isinstance(m, nn.BatchNorm2d) for name in different for m in DARTS_EVALUATION[name](C).modules())
