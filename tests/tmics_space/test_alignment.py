from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nas.errors import ConfigError, UnknownNameError
from tmics_space.alignment import Aligned, OpticalFlow, TemporalGrouping
from tmics_space.consistency import Trust
from tmics_space.flow import ZeroFlow, make_flow, photometric_loss, warp


class TableFlow(nn.Module):
    """A flow for each neighbour, as given: `(frames - 1, 2)`, the same for every item of the batch."""

    def __init__(self, *flows: tuple[float, float]) -> None:
        super().__init__()
        self.flows = torch.tensor(flows)

    def forward(self, reference: Tensor, neighbour: Tensor) -> Tensor:
        flows = self.flows.to(reference).repeat(len(reference) // len(self.flows), 1)
        return flows[:, :, None, None].expand(-1, -1, *reference.shape[2:])


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def stack_seen_by(ofm: OpticalFlow, frames: Tensor) -> Tensor:
    """What the convolutions of `ofm` receive."""
    seen: list[Tensor] = []
    hook = ofm.merge.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    ofm(frames)
    hook.remove()
    return seen[0]


def test_point_01_parameters() -> None:
    assert count(OpticalFlow(96, ZeroFlow())) == 37_730
    assert count(TemporalGrouping(96)) == 255_750
    assert count(OpticalFlow(96, ZeroFlow(), normalize="group")) == 37_730
    assert count(TemporalGrouping(96, normalize="batch")) == 255_750


@pytest.mark.parametrize("frames", [3, 5, 7])
def test_point_01_parameters_at_other_windows(frames: int) -> None:
    c = 8
    blocks = (c * c + 20 * c + 1) + (c * c + 45 * c + 1)
    groups = frames // 2
    assert count(OpticalFlow(c, ZeroFlow(), frames)) == 9 * 3 * frames * c + c + blocks
    assert count(TemporalGrouping(c, frames)) == groups * (81 * c + c + blocks) + 9 * groups * c * c + c + blocks


@pytest.mark.parametrize("frames", [3, 5, 7])
@pytest.mark.parametrize("size", [(16, 16), (13, 9), (1, 1)])
def test_both_return_features_and_a_scalar(frames: int, size: tuple[int, int]) -> None:
    window = torch.rand(2, frames, 3, *size)
    for module in (OpticalFlow(4, make_flow("pyramid", width=4), frames), TemporalGrouping(4, frames)):
        aligned = module(window)
        assert isinstance(aligned, Aligned)
        assert aligned.features.shape == (2, 4, *size)
        assert aligned.photometric.shape == ()


def test_point_08_zero_flow_is_a_stack_of_the_frames_in_temporal_order() -> None:
    frames = torch.rand(2, 5, 3, 9, 11)
    for flow in (ZeroFlow(), make_flow("pyramid", width=4)):
        assert torch.equal(stack_seen_by(OpticalFlow(4, flow), frames), frames.flatten(1, 2))


def test_at_half_size_the_warped_frames_become_channels() -> None:
    """Frames are warped at full size, by an odd motion here."""
    frames = torch.rand(2, 3, 3, 12, 10)
    seen = stack_seen_by(OpticalFlow(4, TableFlow((1, 0), (0, -3)), 3, scale=2), frames)
    flows = torch.tensor(((1.0, 0.0), (0.0, -3.0))).view(2, 1, 2, 1, 1).expand(-1, 2, -1, 12, 10)
    whole = torch.cat((warp(frames[:, 0], flows[0]), frames[:, 1], warp(frames[:, 2], flows[1])), 1)
    assert seen.shape == (2, 36, 6, 5)
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        assert torch.equal(seen[:, 2 * row + column :: 4], whole[:, :, row::2, column::2])


def test_parameters_at_half_size() -> None:
    c = 8
    blocks = (c * c + 20 * c + 1) + (c * c + 45 * c + 1)
    assert count(OpticalFlow(c, ZeroFlow(), scale=2)) == 9 * 60 * c + c + blocks
    assert count(OpticalFlow(c, ZeroFlow(), scale=2, consistency=Trust(2))) == 9 * 64 * c + c + blocks
    assert count(TemporalGrouping(c, scale=2)) == 2 * (9 * 36 * c + c + blocks) + 9 * 2 * c * c + c + blocks


def test_point_08_integer_motion_is_undone_exactly_in_the_interior() -> None:
    """Frame t shows the scene moved by t (1, 2) pixels; so frame t is the centre at a flow of (t - 2) (1, 2)."""
    scene = torch.rand(2, 3, 40, 40)
    frames = torch.stack([scene[..., 10 - 2 * t : 34 - 2 * t, 10 - t : 34 - t] for t in range(5)], 1)
    ofm = OpticalFlow(4, TableFlow((-2, -4), (-1, -2), (1, 2), (2, 4)))
    aligned = stack_seen_by(ofm, frames).view(2, 5, 3, 24, 24)
    for t in range(5):
        assert torch.equal(aligned[:, t, :, 4:-4, 4:-4], frames[:, 2, :, 4:-4, 4:-4])


@pytest.mark.parametrize("normalize", ["none", "group"])
def test_point_08_batch_items_are_independent(normalize: str) -> None:
    frames = torch.rand(3, 5, 3, 12, 14, dtype=torch.float64)
    flow = make_flow("pyramid", width=4, levels=2)
    for parameter in flow.parameters():
        nn.init.normal_(parameter, std=0.1)
    for module in (OpticalFlow(4, flow, normalize=normalize), TemporalGrouping(4, normalize=normalize)):
        module = module.double().eval()
        torch.testing.assert_close(module(frames).features[1:2], module(frames[1:2]).features)


def test_the_photometric_term_is_the_mean_over_the_neighbours_in_training_only() -> None:
    frames = torch.rand(2, 3, 3, 8, 8)
    flows = ((0.5, 0.0), (-1.0, 2.0))
    ofm = OpticalFlow(4, TableFlow(*flows), 3)
    terms = []
    for t, (u, v) in zip((0, 2), flows, strict=True):
        flow = torch.tensor((u, v)).view(1, 2, 1, 1).expand(2, 2, 8, 8)
        terms.append(photometric_loss(frames[:, 1], warp(frames[:, t], flow), flow))
    torch.testing.assert_close(ofm(frames).photometric, (terms[0] + terms[1]) / 2)
    assert ofm.eval()(frames).photometric.item() == 0
    assert TemporalGrouping(4, 3)(frames).photometric.item() == 0


def test_the_features_teach_the_flow_too() -> None:
    torch.manual_seed(0)
    ofm = OpticalFlow(4, make_flow("pyramid", width=4, levels=2))
    ofm(torch.rand(2, 5, 3, 16, 16)).features.square().sum().backward()
    last = [p.grad for p in ofm.flow.parameters()][-2:]
    assert all(grad is not None and grad.abs().sum() > 0 for grad in last)


@pytest.mark.parametrize("frames", [3, 5, 7])
def test_point_09_groups_hold_the_frames_at_one_distance(frames: int) -> None:
    """An impulse in one frame reaches the groups that hold it: the centre all, each other frame its own distance."""
    tgm = TemporalGrouping(4, frames).eval()
    seen: list[Tensor] = []
    for group in tgm.groups:
        group.register_forward_hook(lambda module, inputs, output: seen.append(output))

    def groups_of(window: Tensor) -> list[Tensor]:
        seen.clear()
        tgm(window)
        return list(seen)

    still = torch.rand(1, frames, 3, 9, 9)
    before = groups_of(still)
    for t in range(frames):
        impulse = still.clone()
        impulse[:, t, :, 4, 4] += 1
        reached = {g for g, (a, b) in enumerate(zip(before, groups_of(impulse), strict=True)) if not torch.equal(a, b)}
        distance = abs(t - frames // 2)
        assert reached == (set(range(frames // 2)) if distance == 0 else {frames // 2 - distance})


def test_point_09_farthest_frames_may_swap_where_their_kernels_are_equal() -> None:
    torch.manual_seed(0)
    tgm = TemporalGrouping(4).double().eval()
    window = torch.rand(1, 5, 3, 9, 9, dtype=torch.float64)
    swapped = window[:, [4, 1, 2, 3, 0]]
    assert not torch.allclose(tgm(window).features, tgm(swapped).features)
    first = tgm.groups[0][0]
    with torch.no_grad():
        first.weight[:, 6:9] = first.weight[:, 0:3]
    torch.testing.assert_close(tgm(window).features, tgm(swapped).features)
    assert not torch.allclose(tgm(window).features, tgm(window[:, [0, 3, 2, 1, 4]]).features)


def test_groups_are_stacked_from_past_to_future() -> None:
    tgm = TemporalGrouping(4, 5)
    window = torch.arange(5.0).view(1, 5, 1, 1, 1).expand(1, 5, 3, 2, 2)
    seen: list[list[float]] = []
    for group in tgm.groups:
        group.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][0, ::3, 0, 0].tolist()))
    tgm(window)
    assert seen == [[0, 2, 4], [1, 2, 3]]


def test_normalized_alignments_have_one_scale() -> None:
    frames = torch.rand(2, 5, 3, 16, 16)
    for module in (OpticalFlow(8, ZeroFlow(), normalize="group"), TemporalGrouping(8, normalize="group")):
        assert module(frames).features.std().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("shape", [(1, 3, 3, 8, 8), (5, 3, 8, 8), (1, 5, 1, 8, 8), (1, 7, 3, 8, 8)])
def test_other_frames_are_refused(shape: tuple[int, ...]) -> None:
    for module in (OpticalFlow(4, ZeroFlow()), TemporalGrouping(4)):
        with pytest.raises(ConfigError, match=r"frames must .*\(batch, 5, 3, height, width\), got \("):
            module(torch.rand(shape))


def test_bad_arguments_are_named() -> None:
    for frames in (1, 4, -5):
        with pytest.raises(ConfigError, match=f"'frames' must be odd and at least 3, got {frames}"):
            TemporalGrouping(4, frames)
    with pytest.raises(UnknownNameError, match="did you mean 'group'"):
        OpticalFlow(4, ZeroFlow(), normalize="grop")
