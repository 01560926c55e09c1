from __future__ import annotations

import pytest
import torch
from torch import nn

from nas.errors import ConfigError, UnknownNameError
from tmics_space.flow import PyramidFlow, ZeroFlow, flow_provider, flow_providers, make_flow, provider


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider, "_providers", dict(provider._providers))


def test_the_providers_of_the_project_are_registered() -> None:
    assert {"dis", "pyramid", "zero"} <= flow_providers().keys()


def test_make_flow_passes_arguments_on() -> None:
    flow = make_flow("pyramid", width=4, levels=2)
    assert isinstance(flow, PyramidFlow)
    assert flow.levels == 2


def test_a_provider_of_a_user_is_found_by_name() -> None:
    @flow_provider("still")
    def still() -> nn.Module:
        return ZeroFlow()

    assert isinstance(make_flow("still"), ZeroFlow)


def test_a_name_is_taken_once() -> None:
    with pytest.raises(ConfigError, match=r"'zero' is registered twice: by .*ZeroFlow and by .*Other"):

        @flow_provider("zero")
        class Other(nn.Module):
            pass


def test_an_unknown_provider_names_the_nearest_and_how_to_register() -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean 'pyramid'.*@tmics_space.flow.flow_provider"):
        make_flow("pyramids")


def test_an_unknown_argument_says_which_there_are() -> None:
    with pytest.raises(ConfigError, match=r"'pyramid' takes \(width: .*'widht'"):
        make_flow("pyramid", widht=4)


def test_zero_flow_is_zero_of_the_right_shape_and_type() -> None:
    frame = torch.rand(2, 3, 5, 7, dtype=torch.float64)
    flow = make_flow("zero")(frame, frame)
    assert torch.equal(flow, torch.zeros(2, 2, 5, 7, dtype=torch.float64))
