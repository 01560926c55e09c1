"""Layers that the planner knows, and candidates that run as a whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nas.planner.known_layers import is_shared, key, layers_of
from nas.space.primitives import DARTS, NAS_BENCH_201, FactorizedReduce, Parallel, conv_bn_relu


def names(module: nn.Module) -> list[str] | None:
    layers = layers_of(module)
    return None if layers is None else [type(layer).__name__ for layer in layers]


def test_sequentials_are_flattened() -> None:
    inner = nn.Sequential(nn.Identity(), nn.Conv2d(2, 2, 1))
    assert names(nn.Sequential(nn.ReLU(), nn.Sequential(inner, nn.Tanh()))) == ["ReLU", "Conv2d", "Tanh"]
    assert names(nn.Identity()) == []


def test_the_usual_operations_are_known() -> None:
    for name, make in (DARTS | NAS_BENCH_201 | {"conv_bn_relu": conv_bn_relu}).items():
        for stride in (1, 2):
            assert (names(make(4, stride=stride)) is None) == (name == "none")


def hooked() -> nn.Module:
    module = nn.Sequential(nn.ReLU(), nn.Tanh())
    module[1].register_forward_hook(lambda *_: None)
    return module


class Own(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


UNKNOWN = {
    "dropout": nn.Sequential(nn.ReLU(), nn.Dropout2d()),
    "hook": hooked(),
    "in place": nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(2, 2, 1)),
    "padding mode": nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"),
    "cumulative average": nn.BatchNorm2d(2, momentum=None),
    "indices": nn.MaxPool2d(2, return_indices=True),
    "subclass": Own(nn.ReLU()),
    "parametrized": nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 2, 1)),
    "unknown branch": Parallel([nn.ReLU(), nn.Dropout2d()]),
}


@pytest.mark.parametrize("module", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_what_is_left_alone(module: nn.Module) -> None:
    assert layers_of(module) is None


def test_writing_in_place_later_is_as_good_as_anew() -> None:
    assert names(nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU(inplace=True))) == ["Conv2d", "ReLU"]


def test_a_structure_is_what_the_module_computes() -> None:
    for training in (True, False):
        reduce = FactorizedReduce(3, 5).double().train(training)
        x = torch.randn(2, 3, 5, 6, dtype=torch.double)
        expected = y = reduce(x)
        y = x
        for layer in reduce.structure():
            y = layer(y)
        torch.testing.assert_close(y, expected, rtol=1e-13, atol=1e-13)


def test_keys_tell_functions_apart() -> None:
    assert key(nn.Conv2d(2, 4, 3)) == key(nn.Conv2d(2, 4, 3))
    others = [
        nn.Conv2d(2, 4, 3),
        nn.Conv2d(2, 4, 3, stride=2),
        nn.Conv2d(2, 4, 3, bias=False),
        nn.Conv2d(2, 4, 3, dilation=2),
        nn.Conv2d(2, 6, 3),
        nn.BatchNorm2d(4),
        nn.BatchNorm2d(4, affine=False),
        nn.BatchNorm2d(4, eps=1e-3),
        nn.BatchNorm2d(4, momentum=0.2),
        nn.BatchNorm2d(4).eval(),
        nn.LeakyReLU(0.1),
        nn.LeakyReLU(0.2),
        nn.ELU(0.1),
    ]
    assert len({key(layer) for layer in others}) == len(others)


def test_settings_that_cannot_be_compared_are_the_modules_own() -> None:
    class Gain(nn.Module):
        channelwise = True

        def __init__(self, gain: Tensor) -> None:
            super().__init__()
            self.gain = gain

    assert key(Gain(torch.ones(1))) != key(Gain(torch.ones(1)))


def test_norms_are_shared_in_training_mode_without_affine_terms() -> None:
    assert is_shared(nn.BatchNorm2d(2, affine=False))
    assert not is_shared(nn.BatchNorm2d(2))
    assert not is_shared(nn.BatchNorm2d(2, affine=False).eval())
    assert is_shared(nn.BatchNorm2d(2, affine=False, track_running_stats=False).eval())
