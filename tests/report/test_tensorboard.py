from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from nas.errors import ConfigError, InvalidFileError
from nas.report.tensorboard import write_tensorboard


def test_every_scalar_comes_back(folder: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert write_tensorboard(folder) == folder / "tensorboard"
    write_tensorboard(folder)  # anew, not twice
    assert len(list((folder / "tensorboard").iterdir())) == 1
    events = accumulator.EventAccumulator(str(folder / "tensorboard")).Reload()
    expected = ["train/lower/loss", "train/lower/norm", "train/upper/loss", "evaluate/psnr_y"]
    expected += ["mixing/alignment/ofm", "mixing/alignment/tgm", "mixing/dna/0/res3", "mixing/dna/0/dense5"]
    expected += ["mixing/dna/0/none", "mixing/cell/2-from-0/4", "mixing/cell/2-from-0/8"]
    assert sorted(events.Tags()["scalars"]) == sorted(expected)
    told = {event.step: event.value for event in events.Scalars("mixing/alignment/ofm")}
    assert told == pytest.approx({10: 0.6, 20: 0.7, 30: 0.8, 40: 0.9})
    assert math.isnan(events.Scalars("train/lower/norm")[6].value)


def test_without_tensorboard_the_error_names_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'tmics-nas\[tensorboard\]'"):
        write_tensorboard(folder)


def test_a_folder_that_cannot_be_written_is_named(folder: Path) -> None:
    pytest.importorskip("tensorboard")
    (folder / "tensorboard").write_text("")
    with pytest.raises(InvalidFileError, match="tensorboard: cannot be written"):
        write_tensorboard(folder)
