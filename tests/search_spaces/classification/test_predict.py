from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor, nn

from nas.errors import ConfigError, DivergedError, InvalidFileError
from search_spaces.classification.task import Classification, ClassificationConfig


class Brightness(nn.Module):
    """Tells bright pictures (class 0) from dark ones by their mean."""

    def forward(self, x: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        mean = x.mean((1, 2, 3))
        return torch.stack([mean, -mean], 1)


@pytest.fixture
def task(pictures: Path) -> Classification:
    folders = {"kind": "folders", "train": str(pictures / "train"), "test": str(pictures / "test"), "size": 6}
    return Classification(msgspec.convert({"data": folders}, ClassificationConfig))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_folder_of_pictures(task: Classification, pictures: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    source, sink = pictures / "test" / "bright", tmp_path / "out" / "bright.csv"
    facts = task.predict(Brightness(), source, sink, progress=lambda *done: calls.append(done))
    assert [(row["file"], row["class"]) for row in rows(sink)] == [("0.png", "bright"), ("1.png", "bright")]
    mean = task.normalize(task.test.pixels[:1]).mean()
    assert float(rows(sink)[0]["probability"]) == pytest.approx((2 * mean).sigmoid().item(), abs=1e-4)
    assert calls == [(1, 2), (2, 2)]
    assert facts["pictures"] == 2
    assert facts["pictures_per_second"] == pytest.approx(2 / facts["seconds"])


def test_a_single_picture(task: Classification, pictures: Path, tmp_path: Path) -> None:
    task.predict(Brightness(), pictures / "test" / "dark" / "1.png", tmp_path / "one.csv")
    assert [row["class"] for row in rows(tmp_path / "one.csv")] == ["dark"]


def test_scores_that_are_not_finite_are_no_classes(task: Classification, pictures: Path, tmp_path: Path) -> None:
    class Lost(Brightness):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * torch.tensor([1.0, torch.nan])

    with pytest.raises(DivergedError, match=r"dark/0\.png: the network's output must be finite"):
        task.predict(Lost(), pictures / "test" / "dark", tmp_path / "lost.csv")
    assert not (tmp_path / "lost.csv").exists()


def test_sources_and_sinks_that_cannot_be(task: Classification, pictures: Path, tmp_path: Path) -> None:
    network: Any = Brightness()
    (tmp_path / "there.csv").touch()
    with pytest.raises(InvalidFileError, match=r"there.csv: exists already"):
        task.predict(network, pictures / "test" / "dark", tmp_path / "there.csv")
    with pytest.raises(ConfigError, match=r"\.csv, got '\.png'"):
        task.predict(network, pictures / "test" / "dark", tmp_path / "out.png")
    with pytest.raises(InvalidFileError, match="no such folder"):
        task.predict(network, tmp_path / "nowhere", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()
