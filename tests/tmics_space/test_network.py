from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.errors import ConfigError
from tmics_space.alignment import Aligned, OpticalFlow, TemporalGrouping
from tmics_space.averaging import AVERAGINGS, Averaging
from tmics_space.blocks import Residual, conv, head
from tmics_space.flow import ZeroFlow, make_flow
from tmics_space.frequency import FrequencyDecomposition
from tmics_space.network import Deraining, Restored, Route
from tmics_space.operations import OPERATIONS
from tmics_space.rain_layer import RainStreaks

HEAVY = ("residual_5x5", "spatial_attention", "channel_attention", "residual_3x3")
LIGHT = ("residual_5x5", "spatial_attention", "dilated_3x3", "channel_attention")


def route(channels: int, cells: int, operations: tuple[str, ...]) -> Route:
    chains = (Residual(*(OPERATIONS[name](channels) for name in operations)) for _ in range(cells))
    return Route(nn.Sequential(*chains), head(channels))


def network(
    channels: int = 4,
    *,
    alignment: Callable[[int], nn.Module] = TemporalGrouping,
    frequency: nn.Module | None = None,
    concat: bool = False,
    streaks: bool = True,
    dna: int = 1,
    cna: int = 1,
    averaging: str = "channel",
    operations: tuple[str, ...] = ("residual_3x3", "channel_attention"),
    **options: Any,
) -> Deraining:
    torch.manual_seed(0)
    return Deraining(
        alignment=alignment(channels),
        frequency=frequency or nn.Identity(),
        streaks=RainStreaks(channels) if streaks and dna else None,
        stem=conv(6 if concat else 3, channels, bias=True) if streaks and dna else None,
        dna=route(channels, dna, operations) if dna else None,
        cna=route(channels, cna, operations) if cna else None,
        averaging=Averaging(averaging) if dna and cna else None,
        concat=concat,
        **options,
    )


def learned(channels: int) -> OpticalFlow:
    return OpticalFlow(channels, make_flow("pyramid", width=4, levels=2))


def moved(module: nn.Module) -> nn.Module:
    """All parameters away from the zeros that some start with."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return module


def test_point_01_totals_of_the_published_networks() -> None:
    with torch.device("meta"):
        heavy = network(
            96,
            frequency=FrequencyDecomposition(96, (4, 6)),
            dna=4,
            cna=4,
            operations=HEAVY,
            averaging="legacy",
        )
        light = network(
            96,
            alignment=lambda c: OpticalFlow(c, ZeroFlow()),
            concat=True,
            dna=4,
            cna=4,
            operations=LIGHT,
        )
    totals = [sum(p.numel() for p in each.parameters()) for each in (heavy, light)]
    assert totals == [7_621_152, 5_510_855 - 122]


@pytest.mark.parametrize("averaging", AVERAGINGS.names())
@pytest.mark.parametrize("concat", [False, True])
def test_point_04_the_output_less_the_frame_is_the_average_of_both_changes(averaging: str, concat: bool) -> None:
    derain = moved(network(averaging=averaging, concat=concat).double())
    changes: list[Tensor] = []
    for route_ in (derain.dna, derain.cna):
        assert route_ is not None
        route_.head.register_forward_hook(lambda _, inputs, output: changes.append(output.tanh()))
    frames = torch.rand(2, 5, 3, 16, 17, dtype=torch.float64)
    restored = derain(frames)
    assert isinstance(restored, Restored)
    frame, weight = frames[:, 2], restored.weight
    torch.testing.assert_close(restored.output - frame, weight * changes[0] + (1 - weight) * changes[1])
    torch.testing.assert_close(restored.dominant - frame, changes[0])
    torch.testing.assert_close(restored.companion - frame, changes[1])
    assert not torch.allclose(changes[0], changes[1])


class Table(nn.Module):
    """Returns what it was given at first, whatever it is called with, and remembers what that was."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value
        self.inputs: list[Tensor] = []

    def forward(self, *inputs: Tensor) -> Any:
        self.inputs += inputs
        return self.value


@pytest.mark.parametrize("kind", ["sum", "concat", "no M"])
def test_each_network_sees_its_own_input(kind: str) -> None:
    frames = torch.rand(1, 5, 3, 4, 4)
    raw, features, rain, stemmed = torch.rand(1, 2, 4, 4), *(torch.rand(1, c, 4, 4) for c in (2, 3, 2))
    photometric = torch.tensor(0.25)
    alignment, frequency = Table(Aligned(raw, photometric)), Table(features)
    streaks, stem = (None, None) if kind == "no M" else (Table(rain), Table(stemmed))
    bodies = Table(features), Table(features)
    derain = Deraining(
        alignment=alignment,
        frequency=frequency,
        streaks=streaks,
        stem=stem,
        dna=Route(bodies[0], head(2)),
        cna=Route(bodies[1], head(2)),
        averaging=Averaging(),
        concat=kind == "concat",
    )
    assert derain(frames).photometric is photometric
    assert frequency.inputs == [raw]
    assert bodies[1].inputs == [features]
    seen = bodies[0].inputs[0]
    if streaks is None or stem is None:
        assert torch.equal(seen, features)
    else:
        assert streaks.inputs == [features]
        frame = frames[:, 2]
        expected = rain if kind == "sum" else torch.cat((frame, frame - rain), 1)
        assert torch.equal(stem.inputs[0], expected)
        assert torch.equal(seen, features + stemmed if kind == "sum" else stemmed)


@pytest.mark.parametrize(("dna", "cna", "weight"), [(1, 0, 1.0), (0, 1, 0.0)])
def test_one_network_alone_is_the_output_and_both_branches(dna: int, cna: int, weight: float) -> None:
    restored = network(dna=dna, cna=cna)(torch.rand(2, 5, 3, 9, 9))
    assert torch.equal(restored.output, restored.dominant)
    assert torch.equal(restored.output, restored.companion)
    assert torch.equal(restored.weight, torch.full((2, 1, 1, 1), weight))


@pytest.mark.parametrize("size", [(14, 15), (31, 17), (16, 40)])
@pytest.mark.parametrize("alignment", [TemporalGrouping, learned], ids=["tgm", "ofm"])
def test_any_size_keeps_its_size(alignment: Callable[[int], nn.Module], size: tuple[int, int]) -> None:
    derain = network(alignment=alignment, frequency=FrequencyDecomposition(4), averaging="pixel")
    restored = derain(torch.rand(2, 5, 3, *size))
    for image in (restored.output, restored.dominant, restored.companion):
        assert image.shape == (2, 3, *size)
    assert restored.photometric.shape == ()


@pytest.mark.parametrize("frames", [3, 7])
def test_any_window(frames: int) -> None:
    derain = network(alignment=lambda c: TemporalGrouping(c, frames), frames=frames, dna=0)
    derain.cna.head = nn.Sequential(conv(4, 3), nn.Threshold(1e9, 0.0))  # no change: the frame itself comes out
    window = torch.rand(1, frames, 3, 6, 6)
    assert torch.equal(derain(window).output, window[:, frames // 2])
    with pytest.raises(ConfigError, match=rf"\(batch, {frames}, 3, height, width\), got \(1, 5, 3, 6, 6\)"):
        derain(torch.rand(1, 5, 3, 6, 6))


def test_batch_items_are_independent_in_evaluation() -> None:
    derain = moved(network(alignment=learned, frequency=FrequencyDecomposition(4, (2,)))).double().eval()
    frames = torch.rand(3, 5, 3, 12, 10, dtype=torch.float64)
    torch.testing.assert_close(derain(frames).output[1:2], derain(frames[1:2]).output)


@pytest.mark.parametrize("options", [{}, {"concat": True}, {"streaks": False}, {"dna": 0}, {"cna": 0}], ids=str)
def test_every_parameter_learns(options: dict[str, Any]) -> None:
    derain = moved(network(alignment=learned, frequency=FrequencyDecomposition(4, (2,)), **options))
    restored = derain(torch.rand(2, 5, 3, 12, 12))
    (restored.output.square().sum() + restored.photometric).backward()
    assert not [name for name, p in derain.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]


@pytest.mark.parametrize("concat", [False, True])
def test_second_derivatives_exist_everywhere(concat: bool) -> None:
    """An exact hypergradient differentiates the gradient once more, through every block and the learned flow."""
    derain = moved(
        network(
            alignment=learned, frequency=FrequencyDecomposition(4, (2,)), concat=concat, operations=tuple(OPERATIONS)
        )
    ).double()
    restored = derain(torch.rand(1, 5, 3, 8, 8, dtype=torch.float64))
    loss = restored.output.square().mean() + restored.photometric
    parameters = dict(derain.named_parameters())
    gradients = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in gradients), list(parameters.values()))
    for name, gradient in zip(parameters, second, strict=True):
        assert gradient.isfinite().all(), name
        assert gradient.abs().sum() > 0, name


def test_the_wiring_names_the_parts_that_are_there() -> None:
    def parts(derain: Deraining) -> set[str]:
        return {name for wire in derain.wiring for name in wire} - {"frames", "output"}

    whole = network()
    assert whole.wiring == Deraining.wiring
    for derain in (whole, network(concat=True), network(streaks=False), network(dna=0), network(cna=0)):
        assert parts(derain) == {name for name, _ in derain.named_children()}
        ends = [target for source, target in derain.wiring if target == "output"]
        assert len(ends) == 1
    assert ("frames", "stem") in network(concat=True).wiring
    assert ("frequency", "stem") in whole.wiring
    assert ("frequency", "dna") in network(streaks=False).wiring
    assert ("cna", "output") in network(dna=0).wiring


def test_parts_that_do_not_fit_are_refused() -> None:
    parts: dict[str, Any] = {
        "alignment": TemporalGrouping(4),
        "frequency": nn.Identity(),
        "streaks": RainStreaks(4),
        "stem": conv(3, 4),
        "dna": route(4, 1, ()),
        "cna": route(4, 1, ()),
        "averaging": Averaging(),
    }
    Deraining(**parts)
    for missing, message in [
        ({"dna", "cna"}, "'dna', 'cna' or both, got neither"),
        ({"stem"}, "'streaks' and 'stem' must"),
        ({"streaks"}, "'streaks' and 'stem' must"),
        ({"dna", "averaging"}, "'streaks' and 'stem' must .* with 'dna'"),
        ({"averaging"}, "'averaging' must"),
        ({"cna"}, "'averaging' must"),
    ]:
        with pytest.raises(ConfigError, match=message):
            Deraining(**{name: None if name in missing else part for name, part in parts.items()})
