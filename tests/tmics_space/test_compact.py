"""The candidates of the set `tmics-compact`, and the configuration `compact`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.kernels.activation import SLOPE
from nas.run.checkpoint import load_weights
from nas.run.config import load_config
from nas.run.folder import Run, read_records, read_state
from nas.run.retraining import retrain
from nas.run.searching import search
from nas.space.operations import OperationSet
from states import same
from tmics_space.compact import COMPACT, gated, inverted_residual, wide_pointwise, wide_residual
from tmics_space.data import moving_texture, write_frames
from tmics_space.weights import compact_flow


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("c", [16, 48])
def test_parameters_of_every_operation(c: int) -> None:
    def inverted(kernel: int, expand: int) -> int:
        return 2 * expand * c * c + (kernel**2 + 1) * expand * c + c + 2

    def gate(kernel: int, expand: int) -> int:
        return (3 * expand + expand**2) * c * c + (2 * (kernel**2 + 1) + 1) * expand * c + c

    assert {name: count(make(c)) for name, make in COMPACT.items()} == {
        "residual_3x3": 18 * c * c + 2 * c + 1,
        "dilated_3x3": 18 * c * c + 2 * c + 1,
        "dilated_3x3_4": 18 * c * c + 2 * c + 1,
        "pointwise_5x5": 26 * c * c + 2 * c + 1,
        "inverted_7x7": inverted(7, 2),
        "inverted_5x5_2": inverted(5, 2),
        "gated_3x3": gate(3, 1),
        "gated_5x5": gate(5, 1),
    }


def test_the_set_is_found_by_name() -> None:
    assert OperationSet.of("tmics-compact") is COMPACT


@pytest.mark.parametrize("name", COMPACT)
def test_every_operation_starts_near_its_input_and_reaches_all_its_parameters(name: str) -> None:
    torch.manual_seed(0)
    operation = COMPACT[name](8)
    x = torch.randn(2, 8, 9, 7, requires_grad=True)
    out = operation(x)
    assert out.shape == x.shape
    assert 0 < (out - x).std() < 0.3 * x.std()
    out.square().sum().backward()
    assert not [n for n, p in operation.named_parameters() if p.grad is None or not p.grad.abs().sum()]


@pytest.mark.parametrize("name", COMPACT)
def test_batch_items_are_independent_in_training(name: str) -> None:
    operation = COMPACT[name](4).double()
    x = torch.randn(3, 4, 7, 7, dtype=torch.float64)
    torch.testing.assert_close(operation(x)[1:2], operation(x[1:2]))


def randomized(operation: nn.Module) -> tuple[nn.Module, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for tensor in operation.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype))
    return operation, operation.state_dict()


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x > 0, x, slope * x)


@pytest.mark.parametrize("last", [3, 1])
def test_wide_convolutions_follow_their_formula(last: int) -> None:
    make = wide_residual if last == 3 else wide_pointwise
    operation, w = randomized(make(3, kernel=5, dilation=2).double())
    x = torch.randn(2, 3, 9, 8, dtype=torch.float64)
    y = prelu(F.conv2d(x, w["body.0.weight"], w["body.0.bias"], padding=4, dilation=2), w["body.1.weight"])
    expected = x + F.conv2d(y, w["body.2.weight"], w["body.2.bias"], padding=last // 2)
    torch.testing.assert_close(operation(x), expected)


def test_an_inverted_residual_follows_its_formula() -> None:
    operation, w = randomized(inverted_residual(3, kernel=5, dilation=2, expand=3).double())
    x = torch.randn(2, 3, 9, 8, dtype=torch.float64)
    y = prelu(F.conv2d(x, w["body.0.weight"], w["body.0.bias"]), w["body.1.weight"])
    y = prelu(F.conv2d(y, w["body.2.weight"], padding=4, dilation=2, groups=9), w["body.3.weight"])
    torch.testing.assert_close(operation(x), x + F.conv2d(y, w["body.4.weight"], w["body.4.bias"]))


def test_a_gated_block_follows_its_formula() -> None:
    operation, w = randomized(gated(3, kernel=5, expand=2).double())
    x = torch.randn(2, 3, 9, 8, dtype=torch.float64)
    y = F.conv2d(x, w["body.0.weight"], w["body.0.bias"])
    y = F.conv2d(y, w["body.1.weight"], padding=2, groups=12)
    y = y[:, :6] * y[:, 6:]
    y = y * F.conv2d(y.mean((2, 3), keepdim=True), w["body.3.conv.weight"], w["body.3.conv.bias"])
    torch.testing.assert_close(operation(x), x + F.conv2d(y, w["body.4.weight"], w["body.4.bias"]))


def test_initial_weights() -> None:
    torch.manual_seed(0)
    first, _, last = wide_residual(48).body  # type: ignore[misc]
    he = (2 / (1 + SLOPE**2) / (48 * 9)) ** 0.5
    assert first.weight.std().item() == pytest.approx(he, rel=0.02)
    assert last.weight.std().item() == pytest.approx(0.1 * he, rel=0.02)
    assert not last.bias.any()


def part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in sorted(state.items()) if name.startswith(prefix)}


def test_the_configuration_runs_and_holds_the_shipped_flow_fixed(tmp_path: Path) -> None:
    paths = {name: tmp_path / name for name in "abcd"}
    for seed, path in enumerate(paths.values()):
        with write_frames(path) as write:
            for frame in moving_texture(5, 24, 28, seed):
                write(frame)
    films = {
        split: ", ".join(f"{name}: {paths[name]}" for name in names)
        for split, names in {"train": "abc", "validation": "d", "test": "d"}.items()
    }
    task = [f"task.{split}={{kind: films, films: {{{found}}}, rain: light25}}" for split, found in films.items()]
    small = ["options.channels=4", "task.crop=16", "task.batch=2", "search.steps=5", "search.epochs=1"]
    config = load_config("compact", [*task, *small])
    config = load_config(
        "compact",
        [*task, *small, "retrain.epochs=1", *(f"retrain.stages.{stage}.steps=2" for stage in config.retrain.stages)],
    )
    shipped = part(load_weights(compact_flow()), "")
    with Run.create(tmp_path / "search", config.dump(), config.seed) as run:
        genotype = search(config, run)
    state = read_state(tmp_path / "search")
    assert state is not None
    assert same(part(state["network"], "network.alignment.ofm.flow."), shipped)
    assert genotype.options["scale"] == 2
    assert genotype.choices["cell/1"] in COMPACT
    choices = {**genotype.choices, "alignment": "ofm", "consistency": "photometric"}
    genotype = msgspec.structs.replace(genotype, choices=choices)
    with Run.create(tmp_path / "network", config.dump(), config.seed) as run:
        network = retrain(config, genotype, run)
    assert same(part(network.state_dict(), "alignment.ofm.flow."), shipped)
    losses = [record["loss"] for record in read_records(tmp_path / "network") if record["kind"] == "train"]
    assert losses
    assert all(map(math.isfinite, losses))
    assert network.eval()(torch.rand(1, 5, 3, 17, 21)).output.shape == (1, 3, 17, 21)
