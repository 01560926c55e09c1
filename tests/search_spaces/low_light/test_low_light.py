"""The task `low-light` and its data."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from nas.errors import ConfigError, InvalidFileError, UnknownNameError
from nas.run.config import load_config
from nas.supernet import Supernet
from nas.testing import TaskTests
from search_spaces.low_light.data import Folders, Synthetic
from search_spaces.low_light.ruas import Enhanced
from search_spaces.low_light.task import LowLight, LowLightConfig

DATA = {"kind": "synthetic", "train": 6, "test": 2, "size": 8}
SMALL = {"estimations": 2, "denoisings": 1, "channels": 3}


class TestLowLight(TaskTests):
    task: ClassVar[Any] = {"name": "low-light", "data": DATA, "batch": 2}

    def network(self) -> nn.Module:
        return Supernet("ruas", **SMALL)


class Given(nn.Module):
    """Multiplies a picture by a number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, picture: Tensor) -> Enhanced:
        output = self.factor * picture
        return Enhanced(output, output, picture)


def test_synthetic_pictures_are_truth_times_light_and_noise() -> None:
    plain = Synthetic(train=1, test=40, size=16, noise=0.0).load()
    light = plain.test / plain.truth
    assert torch.allclose(light.amax(1), light.amin(1), atol=1e-5)  # grey
    assert light.min() > 0.099
    assert light.max() < 0.401
    noisy = Synthetic(train=1, test=1, size=16, noise=0.02).load().test
    noise = noisy - plain.test[:1]  # the first picture is drawn before its noise
    assert noise.std().item() == pytest.approx(0.02, rel=0.1)


def test_psnr_is_that_of_the_test_pictures() -> None:
    task = LowLight(LowLightConfig(data=Synthetic(train=2, test=3, size=8, noise=0.0)))
    pictures = task.config.data.load()
    expected = [
        10 * np.log10(1 / ((2 * dark).clip(0, 1) - bright).square().mean().item())
        for dark, bright in zip(pictures.test, pictures.truth, strict=True)
    ]
    assert task.evaluate(Given(2.0))["psnr"] == pytest.approx(np.mean(expected), rel=1e-5)


def test_an_unknown_split_is_an_error() -> None:
    with pytest.raises(UnknownNameError, match=r"'tran'.*did you mean 'train'"):
        LowLight(LowLightConfig(data=Synthetic(train=2, test=1, size=8))).batch("tran", 0)


def save(path: Path, level: int) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (12, 9), (level, 0, level)).save(path)


def test_folders_pair_the_test_with_its_truth_by_name(tmp_path: Path) -> None:
    for folder, level in (("train", 10), ("dark", 20), ("bright", 200)):
        for number in range(2):
            save(tmp_path / folder / f"{number}.png", level + number)
    data = Folders(*(str(tmp_path / name) for name in ("train", "dark", "bright")), size=8)
    pictures = data.load()
    assert pictures.train.shape == pictures.test.shape == pictures.truth.shape == (2, 3, 8, 8)
    assert (255 * pictures.truth[:, 0, 0, 0]).tolist() == pytest.approx([200, 201])
    (tmp_path / "bright" / "1.png").unlink()
    with pytest.raises(InvalidFileError, match=r"dark/1\.png: needs its picture in good light"):
        data.load()


def test_files_are_enhanced_at_their_own_size(tmp_path: Path) -> None:
    save(tmp_path / "dark" / "a.jpg", 30)
    task = LowLight()
    task.predict(Given(2.0), tmp_path / "dark" / "a.jpg", tmp_path / "a.png")
    assert task.predict(Given(2.0), tmp_path / "dark", tmp_path / "out")["pictures"] == 1
    for path in (tmp_path / "a.png", tmp_path / "out" / "a.png"):
        with Image.open(path) as image:
            assert image.size == (12, 9)
            assert abs(image.getpixel((5, 5))[0] - 60) < 8
    with pytest.raises(InvalidFileError, match=r"a\.png: exists already"):
        task.predict(Given(2.0), tmp_path / "dark" / "a.jpg", tmp_path / "a.png")


def test_a_failed_enhancement_writes_nothing(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        save(tmp_path / "dark" / name, 30)
    task, dark = LowLight(), tmp_path / "dark"
    with pytest.raises(ConfigError, match=r"one of \.png.*got '\.foo'"):
        task.predict(Given(float("nan")), dark / "a.png", tmp_path / "a.foo")
    task.predict(Given(2.0), dark / "a.png", tmp_path / "no" / "x.PNG")
    assert (tmp_path / "no" / "x.PNG").is_file()
    with pytest.raises(InvalidFileError, match=r"c: cannot be written"):
        task.predict(Given(2.0), dark, tmp_path / "no" / "x.PNG" / "c")

    (dark / "b.png").write_text("no picture")
    with pytest.raises(InvalidFileError, match=r"b\.png"):
        task.predict(Given(2.0), dark, tmp_path / "out")
    save(dark / "a.bmp", 30)
    for tried in (lambda: task.predict(Given(2.0), dark, tmp_path / "out"), Folders(*3 * [str(dark)], size=8).load):
        with pytest.raises(InvalidFileError, match=r"a\.png: .*'a' in a\.bmp"):
            tried()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dark", "no"]


def test_the_logits_of_the_light_affect_the_noise_that_is_left() -> None:
    """The levels are coupled; `both` is the sum of the two losses, whose gradients add up."""
    torch.manual_seed(0)
    supernet = Supernet("ruas", **SMALL).double()
    task = LowLight(LowLightConfig(data=Synthetic(train=2, test=1, size=8)))
    picture = task.batch("train", 0).double()
    logits = [supernet.arch[f"light/{name}"] for name in ("keep_1", "pass_3")]
    light, noise, both = (
        torch.cat(torch.autograd.grad(task.losses[name](supernet, picture), logits))
        for name in ("light", "noise", "both")
    )
    assert noise.norm() > 1e-6 * light.norm() > 0
    assert torch.allclose(light + noise, both)
    level = load_config("ruas").search.levels["light"]
    assert (level.loss, level.parameters) == ("both", ("arch.light/*",))
