"""The report of rain: generated beside given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tmics_space.data import moving_texture, rain, write_frames
from tmics_space.data.rainfall import rain_shape, rain_statistics


@pytest.fixture
def rain_report(load_tool: Callable[[str], ModuleType]) -> ModuleType:
    return load_tool("rain_report")


def saved(path: Path, clip: torch.Tensor) -> str:
    with write_frames(path) as write:
        for frame in clip:
            write(frame)
    return str(path)


def test_columns_are_the_statistics(
    rain_report: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clean = moving_texture(3, 60, 80)
    wet = rain(clean, "light25", 0)
    film, rainy = saved(tmp_path / "film", clean), saved(tmp_path / "rainy", wet)
    arguments = ["--film", film, "--preset", "light25", "--pair", rainy, film, "--frames", "3"]
    assert rain_report.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| statistic | filmed clips | light25 | rainy |"
    rows = {cells[0]: cells[2:] for cells in ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)}
    assert set(rain_report.ROWS) <= set(rows)
    for name, expected in {
        "PSNR_Y, dB": rain_statistics(wet, clean).psnr_y,
        "correlation 1 px across": rain_shape(wet, clean).across,
        "that shift: down, px": rain_shape(wet, clean).fall[1],
    }.items():
        assert rows[name] == [f"{expected:.3g}"] * 2
    assert set(rain_report.FILMED) <= set(rain_report.ROWS)


def test_there_must_be_something_to_measure(rain_report: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        rain_report.main(["--preset", "ntu"])
    assert "--film" in capsys.readouterr().err
