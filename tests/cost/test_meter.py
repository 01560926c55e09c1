"""The meter: own shares on a clock that the network itself advances, FLOPs against torch's counter, memory in bytes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nas.cost.meter import Call, Tally, footprint, own_flops, own_shares
from nas.errors import ConfigError

CLOCK = [0.0]


class Spends(nn.Module):
    """Advances the clock before and after it runs other modules in turn."""

    def __init__(self, before: float, after: float = 0.0, *inside: nn.Module) -> None:
        super().__init__()
        self.before, self.after = before, after
        self.inside = nn.Sequential(*inside)

    def forward(self, x: Tensor) -> Tensor:
        CLOCK[0] += self.before
        for module in self.inside:
            x = module(x)
        CLOCK[0] += self.after
        return x


def shares(network: nn.Module, watched: dict[nn.Module, str]) -> dict[str, float]:
    return own_shares(network, [torch.zeros(1)], watched, lambda _, module: watched[module], "rest", lambda: CLOCK[0])


def test_the_shares_of_watched_children_are_subtracted() -> None:
    """Each module spends powers of two of its own, so that a sum says what it is made of."""
    leaf = Spends(1, 2)
    hidden = Spends(4, 8)  # not watched: it belongs to the module around it
    inner = Spends(16, 32, leaf, hidden)
    network = Spends(64, 128, inner, Spends(256))
    assert shares(network, {inner: "inner", leaf: "leaf"}) == {"rest": 448, "inner": 60, "leaf": 3}
    assert shares(network, {network: "all", leaf: "leaf"}) == {"rest": 0, "all": 508, "leaf": 3}
    assert shares(network, {}) == {"rest": 511}


def test_the_calls_of_a_module_are_summed_whoever_makes_them() -> None:
    shared = Spends(1)
    first, second = Spends(4, 8, shared), Spends(16, 32, shared, shared)
    watched = {first: "first", shared: "shared", second: "second"}
    assert shares(Spends(64, 0, shared, first, second), watched) == {"rest": 64, "shared": 4, "first": 12, "second": 48}
    assert shares(Spends(64, 0, first, second), {first: "first", second: "second"}) == {
        "rest": 64, "first": 13, "second": 50,
    }  # fmt: skip


def test_a_module_inside_itself() -> None:
    class Countdown(nn.Module):
        def forward(self, x: int) -> int:
            CLOCK[0] += 1
            return int(self(x - 1)) if x else 0

    module = Countdown()
    assert own_shares(module, [3], [module], lambda *_: "it", "rest", lambda: CLOCK[0]) == {"rest": 0, "it": 4}


def test_modules_of_one_key_are_summed_and_those_that_do_not_run_have_none() -> None:
    a, b, idle = Spends(1), Spends(2), Spends(4)
    assert shares(Spends(8, 0, a, b), {a: "same", b: "same", idle: "idle"}) == {"rest": 8, "same": 3}


def test_a_key_may_depend_on_the_call_around_it() -> None:
    shared = Spends(1)
    network = nn.Sequential(Spends(2, 0, shared), Spends(4, 0, shared, shared))
    watched = [module for module in network.modules() if isinstance(module, Spends)]

    def key(caller: Call[str], module: nn.Module) -> str:
        return f"{caller.key}/{module.before:g}"  # type: ignore[str-format]

    found = own_shares(network, [torch.zeros(1)], watched, key, "", lambda: CLOCK[0])
    assert found == {"": 0, "/2": 2, "/2/1": 1, "/4": 4, "/4/1": 2}


def test_children_of_several_names_take_them_in_turn() -> None:
    block = Spends(1)
    network = nn.Sequential(block, Spends(2), block)
    names: list[str | None] = []

    def key(caller: Call[str], module: nn.Module) -> str:
        names.append(caller.name_of(module))
        return ""

    for _ in range(2):  # a new call of the caller starts again
        own_shares(network, [torch.zeros(1)], [*network.modules(), block], key, "", lambda: CLOCK[0])
    assert names == [None, "0", "1", "2"] * 2  # nothing calls the network itself


def test_a_module_that_raises_has_ended() -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            CLOCK[0] += 1
            raise KeyError

    class Catches(Spends):
        def forward(self, x: Tensor) -> Tensor:
            with pytest.raises(KeyError):
                self.inside(x)
            CLOCK[0] += 2
            return x

    fails = Fails()
    network = Catches(0, 0, fails)
    assert shares(network, {network: "all", fails: "fails"}) == {"rest": 0, "all": 2, "fails": 1}


@pytest.mark.parametrize("works", [True, False])
def test_the_network_stays_as_it_was(works: bool) -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout().eval())
    state = {name: value.clone() for name, value in network.state_dict().items()}
    inputs = [torch.randn(3, 2 if works else 1)]
    try:
        own_shares(network, inputs, network.modules(), lambda *_: 0, 1)
        assert works
    except ConfigError as error:
        assert not works
        assert "3x1 on cpu, got RuntimeError" in str(error)  # noqa: PT017
    assert [module.training for module in network.modules()] == [True, True, True, False]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


class Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(x, x, x).flatten(1) @ torch.ones(
            3 * 4 * 4, 2, device=x.device
        )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "convolutions": (lambda: nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.ConvTranspose2d(6, 2, 2)), (2, 4, 5, 6)),
    "linear": (lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 5)), (2, 7, 4)),
    "attention": (Attention, (2, 3, 4, 4)),
    "encoder": (lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), (2, 5, 4)),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_flops_are_those_of_torch(name: str, device: str, mode: Any) -> None:
    make, shape = NETWORKS[name]
    network, x = make().to(device), torch.zeros(shape, device=device)
    with mode():
        with FlopCounterMode(display=False) as expected:
            network(x)
        with Tally() as tally:
            network(x)
    assert tally.flops == expected.get_total_flops() > 0


def test_flops_need_inputs() -> None:
    with pytest.raises(ConfigError, match="got none"):
        own_flops(nn.Identity(), None, (), lambda *_: 0, 0)


def test_flops_of_forward_and_backward() -> None:
    w = torch.randn(7, 5, requires_grad=True)
    x = torch.randn(3, 7)
    taken = footprint(lambda: torch.autograd.grad((x @ w).sum(), w))
    assert taken.flops == 2 * (2 * 3 * 7 * 5)  # the product, and the gradient of the weights alone


def test_memory_is_that_of_tensors_alive_at_the_same_time() -> None:
    x = torch.zeros(1000)

    def chain() -> None:
        y = x + 1
        for _ in range(5):
            y = y + 1  # the last one and the next

    def kept() -> None:
        for _ in range(100):
            x + 1  # gone before the others are made, of which some take its place
        made = [x + 1 for _ in range(100)]
        del made
        x + 1  # less than the peak

    assert footprint(chain, [x]).memory == 2 * 4000
    assert footprint(kept, [x]).memory == 100 * 4000


def test_views_and_what_was_there_take_nothing() -> None:
    x = torch.zeros(10, 100)
    assert footprint(lambda: (x.view(-1), x.T, x[2:], x.add_(1)), [x]).memory == 0


def test_the_backward_pass_is_watched_too() -> None:
    x = torch.zeros(1000, requires_grad=True)
    forward = footprint(lambda: x.sin().sum(), [x]).memory
    backward = footprint(lambda: torch.autograd.grad(x.sin().sum(), x), [x]).memory
    assert backward >= forward + 4000


def test_works_where_modules_run_on_leaves_within_a_backward_pass() -> None:
    module = torch.nn.Linear(3, 3)

    class Nested(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: object, *cotangents: torch.Tensor) -> torch.Tensor:
            with torch.enable_grad():
                leaf = torch.ones(3, requires_grad=True)
                return torch.autograd.grad(module(leaf).sum(), leaf)[0]

    x = torch.zeros(3, requires_grad=True)
    applied = lambda: torch.autograd.grad(Nested.apply(x).sum(), x)  # type: ignore[no-untyped-call]  # noqa: E731
    assert footprint(applied, [x]).flops == 2 * 2 * 9


def test_time() -> None:
    assert 0.02 <= footprint(lambda: time.sleep(0.02)).seconds < 1
