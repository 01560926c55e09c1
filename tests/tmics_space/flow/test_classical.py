from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F

from nas.errors import ConfigError
from tmics_space.flow import classical, make_flow, warp


def textures(batch: int = 1, size: int = 48) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(batch, 3, size // 4, size // 4, generator=generator)
    return F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True).clamp(0, 1)


def test_it_finds_a_translation_of_each_item_and_its_sign() -> None:
    pytest.importorskip("cv2")
    neighbour = textures(2)
    truth = torch.tensor(((3.0, 1.0), (-2.0, 2.0))).view(2, 2, 1, 1).expand(2, 2, 48, 48)
    reference = warp(neighbour, truth)
    flow = make_flow("dis")(reference, neighbour)
    assert flow.shape == truth.shape
    assert (flow - truth)[..., 8:-8, 8:-8].abs().mean() < 0.2
    assert (warp(neighbour, flow) - reference)[..., 8:-8, 8:-8].abs().mean() < 0.01


def test_it_passes_no_gradient_and_keeps_the_dtype() -> None:
    pytest.importorskip("cv2")
    frames = textures().double().requires_grad_()
    flow = make_flow("dis")(frames, frames)
    assert flow.dtype == torch.float64
    assert not flow.requires_grad


def test_the_flows_of_the_last_pairs_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cv2")
    searched = []
    search = classical._search
    monkeypatch.setattr(classical, "_search", lambda a, b: searched.append(1) or search(a, b))
    flow = make_flow("dis", cache=2)
    a, b, c = textures(3, 16).unsqueeze(1)
    first = flow(a, b)
    assert torch.equal(flow(a, b), first)
    assert len(searched) == 1
    flow(b, a)
    flow(a, c)  # the pair (a, b) is forgotten
    assert len(searched) == 3
    flow(a, c)
    assert len(searched) == 3
    assert torch.equal(flow(a, b), first)
    assert len(searched) == 4


def test_small_frames_are_refused() -> None:
    frames = torch.rand(1, 3, 8, 40)
    with pytest.raises(ConfigError, match=r"at least 12 pixels .*, got 8 x 40"):
        make_flow("dis")(frames, frames)


def test_without_opencv_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    frames = torch.rand(1, 3, 16, 16)
    with pytest.raises(ConfigError, match=r"pip install 'tmics-nas\[flow\]'"):
        make_flow("dis")(frames, frames)


def test_it_has_a_shape_on_the_meta_device() -> None:
    frames = torch.rand(2, 3, 16, 20, device="meta")
    assert make_flow("dis")(frames, frames).shape == (2, 2, 16, 20)
