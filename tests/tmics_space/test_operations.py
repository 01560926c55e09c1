from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.errors import ConfigError
from nas.space.operations import OperationSet, registered_operations
from tmics_space.operations import AUTHORS_NAMES, OPERATIONS, dense, dilated, residual, spatial_attention

COUNTS = {
    "residual_3x3": (4_897, 19_521, 175_297),
    "residual_5x5": (8_993, 35_905, 322_753),
    "dense_3x3": (13_825, 55_297, 497_665),
    "dense_5x5": (38_401, 153_601, 1_382_401),
    "dilated_3x3": (432, 1_376, 10_272),
    "dilated_5x5": (688, 1_888, 11_808),
    "spatial_attention": (4_627, 18_451, 165_907),
    "channel_attention": (4_612, 18_436, 165_892),
}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", COUNTS)
def test_point_01_parameters_of_every_operation(name: str) -> None:
    counts = tuple(count(OPERATIONS[name](channels)) for channels in (16, 32, 96))
    assert counts == COUNTS[name]


def test_point_01_parameters_of_all_eight() -> None:
    sums = [sum(count(make()) for make in OPERATIONS.bind(channels).values()) for channels in (16, 32, 96)]
    assert sums == [76_475, 304_475, 2_731_995]


def test_every_operation_has_an_authors_name() -> None:
    assert list(AUTHORS_NAMES) == list(OPERATIONS) == list(COUNTS)
    for name, theirs in AUTHORS_NAMES.items():
        if "x" in name:
            kernel = name[-1]
            assert theirs.split("_")[1:] == [kernel, "2" if name.startswith("dilated") else "1"]


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("name", ["residual", "dense", "dilated", "spatial_attention", "channel_attention"])
def test_every_factory_keeps_the_size_at_any_kernel(name: str, kernel: int) -> None:
    x = torch.rand(2, 4, 9, 6)
    make = registered_operations()[name]
    assert make(4, kernel=kernel)(x).shape == x.shape
    if "attention" not in name:
        assert make(4, kernel=kernel, dilation=1)(x).shape == x.shape
        assert make(4, kernel=kernel, dilation=2)(x).shape == x.shape


def test_a_set_with_other_kernels_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "sets.yaml"
    path.write_text(
        "operations:\n"
        "  residual_7x7: {factory: residual, kernel: 7}\n"
        "  dense_7x7: {factory: dense, kernel: 7, dilation: 2}\n"
        "  spatial_7: {factory: spatial_attention, kernel: 7}\n"
    )
    candidates = OperationSet.load(path).bind(16)
    counts = {name: count(make()) for name, make in candidates.items()}
    assert counts == {
        "residual_7x7": (49 + 10) * 256 + 32 + 1,
        "dense_7x7": 6 * 49 * 256 + 1,
        "spatial_7": (9 + 49) * 256 + 2 * 49 + 1,
    }


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_reaches_all_its_parameters_and_its_input(name: str) -> None:
    torch.manual_seed(0)
    operation = OPERATIONS[name](6)
    x = torch.randn(2, 6, 9, 8, requires_grad=True)
    operation(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in [x, *operation.parameters()])


@pytest.mark.parametrize("name", OPERATIONS)
def test_batch_items_are_independent_in_evaluation(name: str) -> None:
    operation = OPERATIONS[name](4).double().eval()
    x = torch.randn(3, 4, 7, 7, dtype=torch.float64)
    torch.testing.assert_close(operation(x)[1:2], operation(x[1:2]))


def randomized(module: nn.Module) -> nn.Module:
    """All parameters and statistics away from the values they start with."""
    generator = torch.Generator().manual_seed(0)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(0.2 + torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype))
    return module.eval()


def batch_norm(x: Tensor, state: dict[str, Tensor], key: str) -> Tensor:
    def at(name: str) -> Tensor:
        return state[f"{key}.{name}"].view(1, -1, 1, 1)

    return (x - at("running_mean")) / (at("running_var") + 1e-5).sqrt() * at("weight") + at("bias")


def test_residual_follows_its_formula() -> None:
    operation = randomized(residual(4, kernel=5).double())
    w = operation.state_dict()
    x = torch.randn(2, 4, 9, 8, dtype=torch.float64)
    y = F.conv2d(x, w["body.0.weight"], padding=2)
    y = F.conv2d(y, w["body.1.weight"], padding=2, dilation=2)
    y = batch_norm(F.conv2d(y, w["body.2.weight"]), w, "body.3")
    torch.testing.assert_close(operation(x), x + torch.where(y > 0, y, w["body.4.weight"] * y))


def test_dilated_follows_its_formula() -> None:
    operation = randomized(dilated(4, kernel=5).double())
    w = operation.state_dict()
    x = torch.randn(2, 4, 9, 8, dtype=torch.float64)
    y = F.conv2d(x.clamp(min=0), w["body.1.weight"], padding=4, dilation=2, groups=4)
    y = batch_norm(F.conv2d(y, w["body.2.weight"]), w, "body.3")
    torch.testing.assert_close(operation(x), x + y)


def test_dense_follows_its_formula() -> None:
    operation = randomized(dense(4, kernel=3).double())
    w = operation.state_dict()
    x = torch.randn(2, 4, 9, 8, dtype=torch.float64)

    def layer(i: int, *maps: Tensor) -> Tensor:
        y = F.conv2d(torch.cat(maps, 1), w[f"convs.{i}.weight"], padding=1)
        return torch.where(y > 0, y, w["activation.weight"] * y)

    a = layer(0, x)
    b = layer(1, x, a)
    expected = x + 0.333333 * layer(2, x, a, b)  # the authors' constant; a third of the last differs by 3.3e-7 of it
    torch.testing.assert_close(operation(x), expected, rtol=1e-10, atol=1e-10)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ConfigError, match="got 4"):
        residual(4, kernel=4)
    with pytest.raises(ConfigError, match="got 2"):
        spatial_attention(4, kernel=2)
