from __future__ import annotations

import pytest
import torch
from torch import nn

from nas.errors import ConfigError, UnknownNameError
from nas.registry import register
from tmics_space.flow import FLOW_PROVIDERS, PyramidFlow, ZeroFlow, make_flow


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    for table in ("_registered", "_origins"):
        monkeypatch.setattr(FLOW_PROVIDERS, table, dict(getattr(FLOW_PROVIDERS, table)))


def test_the_providers_of_the_project_are_registered() -> None:
    assert {"dis", "pyramid", "zero"} <= FLOW_PROVIDERS.names().keys()


def test_make_flow_passes_arguments_on() -> None:
    flow = make_flow("pyramid", width=4, levels=2)
    assert isinstance(flow, PyramidFlow)
    assert flow.levels == 2


def test_a_provider_of_a_user_is_found_by_name() -> None:
    @register("flow provider", "still")
    def still() -> nn.Module:
        return ZeroFlow()

    assert isinstance(make_flow("still"), ZeroFlow)


def test_mistakes_name_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"flow provider 'pyramids' \(did you mean 'pyramid'\?\)"):
        make_flow("pyramids")
    with pytest.raises(ConfigError, match=r"^flow\.widht .*\(did you mean 'width'\?\)"):
        make_flow("pyramid", widht=4)


def test_zero_flow_is_zero_of_the_right_shape_and_type() -> None:
    frame = torch.rand(2, 3, 5, 7, dtype=torch.float64)
    flow = make_flow("zero")(frame, frame)
    assert torch.equal(flow, torch.zeros(2, 2, 5, 7, dtype=torch.float64))
