from __future__ import annotations

import base64
import io

import pytest
import torch
from PIL import Image

from nas.report import frame_viewer
from nas.report.frame_viewer import viewers
from nas.run.task import Preview


def image(uri: str) -> Image.Image:
    kind, data = uri.split(",", 1)
    assert kind == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_frames_stand_below_one_another(preview: Preview) -> None:
    (viewer,) = viewers([preview])
    assert (viewer.frames, viewer.height, viewer.width, list(viewer.layers)) == (
        4,
        40,
        64,
        ["rainy", "derained", "truth"],
    )
    for layer, name in enumerate(viewer.layers):
        strip = image(viewer.layers[name]).convert("RGB")
        assert strip.size == (64, 160)
        for i in range(4):
            inside = strip.getpixel((12 * i + 10, 40 * i + 20))
            assert [value > 150 for value in inside] == [channel == layer for channel in range(3)]
            assert max(strip.getpixel((12 * i + 10, 40 * i + 3))) < 60, "above the square"


def test_noise_is_packed_into_the_room_that_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_viewer, "BYTES", 12_000)
    noise = [torch.randint(0, 256, (16, 3, 40, 60), dtype=torch.uint8) for _ in range(3)]
    found = viewers([Preview("noise", dict(zip("abc", noise, strict=True)))] * 2)
    assert sum(len(data) for viewer in found for data in viewer.layers.values()) * 3 / 4 <= 12_000 + 200
    assert 1 <= found[0].frames < 16
    assert image(found[0].layers["a"]).size == (60, 40 * found[0].frames)


def test_nothing_to_show() -> None:
    assert viewers([]) == []
