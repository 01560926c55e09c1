"""Networks with narrow widths against the supernet: what is right passes, and each fault is named by its width."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from nas.errors import SpaceError
from nas.run.inheritance import check_inheritance
from nas.space.chooser import Chooser
from nas.space.definition import SearchSpace

IMAGE, TOKENS = torch.zeros(1, 3, 6, 5), torch.zeros(1, 7, 6)
Space = Callable[..., nn.Module]


class Joined(nn.Module):
    """Two branches, their channels one after another."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.first(x), self.second(x)], 1)


class Shift(nn.Module):
    """A bias that is zero at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift


class Attention(nn.Module):
    """One head whose size is a width, from one projection or from three."""

    def __init__(self, width: nn.Module, channels: int, fused: bool) -> None:
        super().__init__()
        self.width, self.fused = width, fused
        self.project = nn.ModuleList(nn.Linear(6, channels * (3 if fused else 1)) for _ in range(1 if fused else 3))
        self.out = nn.Linear(channels, 6)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.project[0](x).chunk(3, -1) if self.fused else [part(x) for part in self.project]
        q, k, v = map(self.width, parts)
        return self.out((q @ k.transpose(1, 2)).softmax(-1) @ v)


def narrowed(choose: Chooser, *behind: Callable[[int], nn.Module], label: str = "w") -> nn.Sequential:
    """A convolution to a width, layers behind it, and a convolution back."""
    width = choose.width(label, (8, 4))
    layers = [make(width.channels) for make in behind]
    return nn.Sequential(nn.Conv2d(3, width.channels, 3, padding=1), width, *layers, nn.Conv2d(width.channels, 3, 1))


def behind(*layers: Callable[[int], nn.Module]) -> Space:
    return lambda choose, /: narrowed(choose, *layers)


def attention(fused: bool) -> Space:
    def space(choose: Chooser, /) -> nn.Module:
        width = choose.width("w", (2, 4), dim=2)
        return Attention(width, width.channels, fused)

    return space


def joined(choose: Chooser, /) -> nn.Module:
    widths = choose.width("w", (2, 4)), choose.width("last", (2, 4))
    branches = [nn.Sequential(nn.Conv2d(3, width.channels, 1), width) for width in widths]
    return nn.Sequential(Joined(*branches), nn.Conv2d(sum(width.channels for width in widths), 3, 1))


def tokens(choose: Chooser, /) -> nn.Module:
    width = choose.width("w", (2, 4), dim=-1)
    return nn.Sequential(
        nn.Linear(6, width.channels), width, nn.LayerNorm(width.channels), nn.Linear(width.channels, 6)
    )


def conditional(choose: Chooser, /) -> nn.Module:
    """The fault is where the first candidates do not lead, two decisions deep."""
    inside = {"right": lambda: narrowed(choose, label="v"), "wrong": lambda: narrowed(choose, lambda c: nn.Sigmoid())}
    outer = {"plain": lambda: nn.Conv2d(3, 3, 1), "more": lambda: choose("inner", inside)}
    return choose("outer", outer)


def candidate(choose: Chooser, /) -> nn.Module:
    """The fault is in a candidate behind the width."""
    return narrowed(choose, lambda c: choose("op", {"relu": nn.ReLU, "norm": lambda: nn.GroupNorm(1, c)}))


def block(choose: Chooser, /) -> nn.Module:
    """The fault is in the last block of a depth."""
    blocks = [nn.Identity, lambda: narrowed(choose, lambda c: nn.Conv2d(c, c, 3, groups=c, padding=1))]
    return choose.depth("depth", (1, 2), lambda i: blocks[i]())


def one_of_two(choose: Chooser, /) -> nn.Module:
    right = narrowed(choose, lambda c: nn.ReLU(), label="right")
    return nn.Sequential(right, narrowed(choose, lambda c: nn.GroupNorm(1, c)))


@pytest.mark.parametrize(
    ("space", "example"),
    [
        (behind(lambda c: nn.Conv2d(c, c, 3, groups=c, bias=False), lambda c: nn.Tanh()), IMAGE),
        (lambda choose, /: nn.Sequential(narrowed(choose), narrowed(choose, label="v")), IMAGE),
        (attention(fused=False), TOKENS),
        # Both are wrong where a width is behind them, which this space has not.
        (lambda choose, /: choose("norm", {"group": lambda: nn.GroupNorm(1, 3), "sigmoid": nn.Sigmoid}), IMAGE),
    ],
)
def test_right_spaces_pass(space: Space, example: Tensor) -> None:
    check_inheritance(SearchSpace("right", space).describe(), (example,))


@pytest.mark.parametrize(
    ("space", "example"),
    [
        (behind(lambda c: nn.GroupNorm(2, c)), IMAGE),
        (behind(lambda c: nn.BatchNorm2d(c)), IMAGE),  # its bias, and its mean, are 0 at first
        (behind(Shift), IMAGE),
        (behind(lambda c: nn.Conv2d(c, c, 1, groups=c)), IMAGE),
        (behind(lambda c: nn.Sigmoid()), IMAGE),
        (tokens, TOKENS),
        (attention(fused=True), TOKENS),
        (joined, IMAGE),
        (conditional, IMAGE),
        (candidate, IMAGE),
        (block, IMAGE),
        (one_of_two, IMAGE),
    ],
)
def test_a_wrong_width_is_named(space: Space, example: Tensor) -> None:
    with pytest.raises(SpaceError, match=r"^space 'wrong': a derived network with 'w' = [24] does not .* differ by "):
        check_inheritance(SearchSpace("wrong", space).describe(), (example,))


def test_what_cannot_be_built_is_named() -> None:
    with pytest.raises(SpaceError, match=r"'w' = 4 does not .*\(ValueError: num_channels \(4\) must be divisible"):
        check_inheritance(SearchSpace("wrong", behind(lambda c: nn.GroupNorm(8, c))).describe(), (IMAGE,))
    space = SearchSpace("wrong", lambda choose, /: narrowed(choose)[:2])  # the width is that of the output
    with pytest.raises(SpaceError, match=r"'w' = 4 .*outputs have shapes \[\(1, 4, 6, 5\)\], of the supernet \[\(1, 8"):
        check_inheritance(space.describe(), (IMAGE,))


def test_a_layer_that_grows_cannot_inherit() -> None:
    def space(choose: Chooser, /) -> nn.Module:
        width = choose.width("w", (2, 4))
        return nn.Sequential(nn.Conv2d(3, width.channels, 1), width, nn.Conv2d(width.channels, 8 - width.channels, 1))

    message = r"^space 'grows': the supernet's '2\.weight' must be .* got \(4, 4, 1, 1\) for \(6, 2, 1, 1\)"
    with pytest.raises(SpaceError, match=message):
        check_inheritance(SearchSpace("grows", space).describe(), (IMAGE,))


def test_a_fault_that_widths_have_no_part_in_is_not_blamed_on_them() -> None:
    class Counting(nn.Module):
        def __init__(self, part: nn.Module) -> None:
            super().__init__()
            self.part = part

        def forward(self, x: Tensor) -> Tensor:
            return self.part(x) * len(list(self.modules()))

    def space(choose: Chooser, /) -> nn.Module:
        return Counting(nn.Sequential(narrowed(choose), choose("op", {"a": nn.Identity, "b": nn.Tanh})))

    with pytest.raises(
        SpaceError, match=r"^space 'counting': .*whatever their widths: outputs.*op: a, w: 8|w: 8, op: a"
    ):
        check_inheritance(SearchSpace("counting", space).describe(), (IMAGE,))


def test_the_random_state_stays_as_it_was() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    check_inheritance(SearchSpace("right", behind()).describe(), (IMAGE,))
    assert torch.equal(before, torch.get_rng_state())
