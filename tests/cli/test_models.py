"""`nas models`, and `nas predict` with a model by name, by default, and without the extra `video`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nas as package
import shipping
from nas.registry import kind
from nas.run.models import pack
from tmics_space.data import iterate_frames, moving_texture, write_frames

Nas = Callable[..., Any]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    return pack(shipping.tiny_run(folder / "run"), folder / "tiny", shipping.card(folder)).folder


@pytest.fixture
def _only_model(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default model of deraining is a tiny one."""
    models = kind("model")
    for name in ("_registered", "_origins"):
        monkeypatch.setattr(models, name, {})
    monkeypatch.setattr(models, "points", list)
    package.register("model", "tmics-compact")(lambda: packed)


@pytest.mark.usefixtures("_only_model")
def test_models_are_listed_and_shown(nas: Nas, packed: Path, refused: Callable[..., str]) -> None:
    row = nas("models").out.splitlines()[-1].split(maxsplit=6)
    size = round((packed / "weights.safetensors").stat().st_size / 1000)
    parameters = f"{sum(p.numel() for p in package.load(packed).parameters()):,}"
    assert row == ["tmics-compact", "derain", parameters, str(size), "kB", "CC0-1.0", "Removes nothing yet."]
    assert nas("models", "tmics-compact").out == nas("models", packed).out == (packed / "card.md").read_text()
    assert "unknown model 'tmics' (did you mean 'tmics-compact'?)" in refused("models", "tmics")


def test_a_run_is_packed(nas: Nas, packed: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    run, card = packed.parent / "run", packed.parent / "about.md"
    assert nas("models", "pack", run, tmp_path / "model", "--card", card).out.startswith(f"{tmp_path / 'model'}: ")
    for path in packed.iterdir():
        assert (tmp_path / "model" / path.name).read_bytes() == path.read_bytes()
    assert "must be a new or an empty folder" in refused("models", "pack", run, tmp_path / "model", "--card", card)


@pytest.mark.usefixtures("_only_model")
def test_a_model_is_shown_and_exported_like_a_run(
    nas: Nas, refused: Callable[..., str], packed: Path, tmp_path: Path
) -> None:
    assert "parameters: " in nas("show", "tmics-compact").out
    assert nas("export", "tmics-compact", "--out", tmp_path / "w.safetensors").code == 0
    assert "--out must be given for the model 'tmics-compact'" in refused("export", "tmics-compact")
    assert len([*packed.iterdir()]) == 4


@pytest.mark.usefixtures("_only_model")
def test_frames_are_derained_without_a_model_named_and_without_pyav(
    nas: Nas, refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with write_frames(tmp_path / "rainy") as write:
        for frame in moving_texture(3, 17, 21):
            write(frame)
    (tmp_path / "rainy.mp4").write_bytes(b"never read")
    result = nas("predict", tmp_path / "rainy", tmp_path / "clean", "--quiet")
    assert result.out.startswith(f"{tmp_path / 'clean'}: frames 3, ")
    assert iterate_frames(tmp_path / "clean").stems == ("00001", "00002", "00003")
    for source, sink in (("rainy.mp4", "frames"), ("rainy", "clean.mp4")):
        line = refused("predict", tmp_path / source, tmp_path / sink)
        assert "video files need the package 'av': pip install 'tmics-nas[video]'" in line
        assert not (tmp_path / sink).exists()
