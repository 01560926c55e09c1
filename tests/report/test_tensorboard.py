from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path

import pytest

from nas.errors import ConfigError, InvalidFileError
from nas.genotype.file import Genotype
from nas.report.history import Mixing
from nas.report.tensorboard import TensorBoard, mixing_image, write_tensorboard


def test_every_scalar_comes_back(folder: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert write_tensorboard(folder) == folder / "tensorboard"
    write_tensorboard(folder)  # again, not twice
    assert len(list((folder / "tensorboard").iterdir())) == 1
    events = accumulator.EventAccumulator(str(folder / "tensorboard"), {"images": 0}).Reload()
    expected = ["train/lower/loss", "train/lower/norm", "train/upper/loss", "evaluate/psnr_y"]
    expected += ["mixing/alignment/ofm", "mixing/alignment/tgm", "mixing/dna/0/res3", "mixing/dna/0/dense5"]
    expected += ["mixing/dna/0/none", "mixing/cell/2-from-0/4", "mixing/cell/2-from-0/8"]
    assert sorted(events.Tags()["scalars"]) == sorted(expected)
    told = {event.step: event.value for event in events.Scalars("mixing/alignment/ofm")}
    assert told == pytest.approx({10: 0.6, 20: 0.7, 30: 0.8, 40: 0.9})
    assert math.isnan(events.Scalars("train/lower/norm")[6].value)


def test_indicators_mixing_weights_and_genotypes(searched: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = tmp_path / "run"
    shutil.copytree(searched, run)
    write_tensorboard(run)
    events = accumulator.EventAccumulator(str(run / "tensorboard"), {"images": 0}).Reload()
    assert [event.value for event in events.Scalars("observer/collapse/least_margin")] == pytest.approx(
        [step / 600 for step in range(10, 70, 10)]
    )
    assert [event.step for event in events.Images("mixing weights")] == list(range(0, 70, 10))
    if shutil.which("dot"):
        assert [event.step for event in events.Images("genotype")] == list(range(10, 70, 10))
    else:
        (text,) = {event.tensor_proto.string_val[0].decode() for event in events.Tensors("genotype/text_summary")}
        assert str(Genotype.load(searched / "genotype.yaml").choices["cell/1"]) in text


def test_what_was_written_is_not_written_again(folder: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    board = TensorBoard()
    board.open(folder)
    for end in (10, 50, len(lines)):
        (folder / "metrics.jsonl").write_text("".join(lines[:end]))
        board.update()
    board.on_end()
    events = accumulator.EventAccumulator(str(folder / "tensorboard"), {"images": 0}).Reload()
    assert [event.step for event in events.Scalars("train/upper/loss")] == list(range(1, 41))
    assert [event.step for event in events.Images("mixing weights")] == [10, 20, 30, 40]


def test_heavy_mixing_weights_are_dark() -> None:
    mixing = {"a": Mixing(["x", "y"], [0], [[1.0, 0.0]]), "longer": Mixing(["x"], [0], [[0.25]])}
    image = mixing_image(mixing, 0)
    assert image.shape[0] == 48
    left = image.shape[1] - 2 * 48
    assert [tuple(image[2, left + x]) for x in (2, 50)] == [(0, 0, 255), (255, 255, 255)]
    assert tuple(image[26, left + 2]) == (191, 191, 255)
    assert tuple(image[26, left + 50]) == (255, 255, 255), "no second candidate"


def test_without_tensorboard_the_error_names_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ConfigError, match=r"tmics-nas\[tensorboard\]"):
        write_tensorboard(folder)


def test_a_folder_that_cannot_be_written_is_named(folder: Path) -> None:
    pytest.importorskip("tensorboard")
    (folder / "tensorboard").write_text("")
    with pytest.raises(InvalidFileError, match="tensorboard"):
        write_tensorboard(folder)
