from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nas.errors import UnknownNameError
from tmics_space.averaging import AVERAGINGS, Averaging

SHAPES = {
    "scalar": (2, 1, 1, 1),
    "channel": (2, 3, 1, 1),
    "pixel": (2, 3, 7, 5),
    "legacy": (2, 3, 1, 1),
    "free": (2, 1, 1, 1),
    "fixed": (2, 1, 1, 1),
}


def images(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    dominant, companion = torch.rand(2, 2, 3, 7, 5, dtype=dtype, generator=generator)
    return dominant, companion


def moved(mode: str) -> Averaging:
    """An averaging whose weights are away from the zeros that it starts with."""
    torch.manual_seed(0)
    averaging = Averaging(mode).double()
    for parameter in averaging.parameters():
        nn.init.normal_(parameter, std=0.5)
    return averaging


def test_point_01_parameters() -> None:
    counts = {mode: sum(p.numel() for p in Averaging(mode).parameters()) for mode in AVERAGINGS.names()}
    assert counts == {"scalar": 338, "channel": 338, "pixel": 338, "legacy": 460, "free": 1, "fixed": 0}


@pytest.mark.parametrize("mode", AVERAGINGS.names())
def test_every_mode_starts_at_exactly_one_half(mode: str) -> None:
    dominant, companion = images()
    output, weight = Averaging(mode)(dominant, companion)
    assert weight.shape == SHAPES[mode]
    assert (weight == 0.5).all()
    assert torch.equal(output, 0.5 * dominant + 0.5 * companion)


@pytest.mark.parametrize("mode", [mode for mode in AVERAGINGS.names() if mode != "free"])
def test_the_output_lies_between_the_branches(mode: str) -> None:
    dominant, companion = images(torch.float64)
    output, weight = moved(mode)(dominant, companion)
    assert ((weight > 0) & (weight < 1)).all()
    torch.testing.assert_close(output - companion, weight * (dominant - companion))


@pytest.mark.parametrize(("mode", "over"), [("scalar", (1, 2, 3)), ("channel", (2, 3)), ("pixel", None)])
def test_scores_compete_in_a_softmax_over_the_branches(mode: str, over: tuple[int, ...] | None) -> None:
    dominant, companion = images(torch.float64)
    averaging = moved(mode)
    scores = [averaging.weighting.dominant(dominant), averaging.weighting.companion(companion)]
    if over is not None:
        scores = [score.mean(over, keepdim=True) for score in scores]
    expected = torch.stack(scores).softmax(0)[0]
    torch.testing.assert_close(averaging(dominant, companion)[1], expected)


def test_a_higher_score_of_the_dominant_branch_raises_its_weight() -> None:
    averaging = Averaging("channel")
    with torch.no_grad():
        averaging.weighting.dominant[-1].bias.fill_(2.0)
    assert (averaging(*images())[1] == torch.sigmoid(torch.tensor(2.0))).all()


def test_legacy_looks_at_the_dominant_image_alone() -> None:
    dominant, companion = images(torch.float64)
    averaging = moved("legacy")
    w = averaging.state_dict(prefix="")
    mean = (dominant.mean((2, 3)) @ w["weighting.mix.weight"][:, :, 0, 0].T).unsqueeze(1)
    hidden = (mean @ w["weighting.dense.0.weight"].T + w["weighting.dense.0.bias"]).clamp(min=0)
    expected = torch.sigmoid(hidden @ w["weighting.dense.2.weight"].T + w["weighting.dense.2.bias"])
    _, weight = averaging(dominant, companion)
    torch.testing.assert_close(weight.flatten(1), expected.squeeze(1))
    assert torch.equal(averaging(dominant, 1 - companion)[1], weight)


def test_free_is_its_parameter() -> None:
    averaging = Averaging("free")
    nn.init.constant_(averaging.weighting.weight, -1.5)
    assert (averaging(*images())[1] == -1.5).all()


@pytest.mark.parametrize("mode", [mode for mode in AVERAGINGS.names() if mode != "fixed"])
def test_every_parameter_learns(mode: str) -> None:
    averaging = moved(mode)
    dominant, companion = images(torch.float64)
    averaging(dominant, companion)[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in averaging.parameters())


@pytest.mark.parametrize("mode", AVERAGINGS.names())
def test_batch_items_are_independent_and_branches_receive_gradients(mode: str) -> None:
    averaging = moved(mode)
    dominant, companion = images(torch.float64)
    output, weight = averaging(dominant, companion)
    alone, alone_weight = averaging(dominant[1:], companion[1:])
    torch.testing.assert_close(output[1:], alone)
    torch.testing.assert_close(weight[1:], alone_weight)
    inputs = tuple(image[:1, :, :3, :2].detach().requires_grad_() for image in (dominant, companion))
    assert torch.autograd.gradcheck(lambda d, c: averaging(d, c)[0], inputs)


def test_an_unknown_mode_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown averaging 'pixels' \(did you mean 'pixel'"):
        Averaging("pixels")


@pytest.mark.parametrize("mode", AVERAGINGS.names())
def test_its_operations_can_be_counted_without_gradients(mode: str) -> None:
    with torch.no_grad(), FlopCounterMode(display=False):  # which cannot take a view of a parameter
        Averaging(mode)(*images())
