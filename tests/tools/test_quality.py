from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tmics_space.data import moving_texture, temporal_median
from tmics_space.data.writer import write_frames
from tmics_space.metrics.protocol import evaluate_clip
from tmics_space.network import Restored

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def quality(load_tool: Callable[[str], ModuleType]) -> ModuleType:
    return load_tool("quality")


class Darker(torch.nn.Module):
    """The middle frame, darker by a number of levels."""

    frames = 3

    def __init__(self, levels: float) -> None:
        super().__init__()
        self.levels = torch.nn.Parameter(torch.tensor(levels / 255))

    def forward(self, frames: torch.Tensor) -> Restored:
        middle = frames[:, 1] - self.levels
        return Restored(middle, middle, middle, torch.ones(len(frames), 1, 1, 1), middle.sum() * 0)


def test_it_scores_what_is_missing_and_prints_means_over_trainings(quality: ModuleType, tmp_path: Path) -> None:
    films = {}
    for seed, camera in enumerate(("moving", "static")):
        with write_frames(tmp_path / f"{camera}.mkv") as write:
            for frame in moving_texture(5, 40, 80, seed).clamp(min=20):
                write(frame)
        films[camera] = [tmp_path / f"{camera}.mkv"]
    protocol = quality.Protocol(films, frames=3, start=1, seeds=(7, 8), crop=(32, 40))
    networks = [quality.Network(name, "", "") for name in quality.BASELINES]
    networks += [quality.Network("dark", f"run{n}", f"{n}", Darker(n).eval()) for n in (4, 8)]
    text = quality.run(networks, protocol, tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
    rains = [*quality.RAINS, "filmed", quality.CLEAN]
    assert len(rows) == 2 * 4 * (4 * 2 + 3), "four rains of two seeds; doubled frames, a pan and no rain of one"
    (first,) = [
        row
        for row in rows
        if row["network"] == quality.MEDIAN
        and (row["case"]["camera"], row["case"]["rain"], row["case"]["seed"]) == ("moving", "ntu", 8)
    ]
    clean = moving_texture(5, 40, 80, 0).clamp(min=20)[1:4, :, 4:36, 20:60]
    rainy, truth = quality.rained("ntu", films["moving"][0], protocol, 8)
    assert torch.equal(truth, clean)
    expected = evaluate_clip("y", temporal_median(rainy).float() / 255, clean.float() / 255)
    assert first["psnr"] == pytest.approx(expected.psnr, abs=1e-4)
    assert first["ssim"] == pytest.approx(expected.ssim, abs=1e-5)
    assert set(rains) == {row["case"]["rain"] for row in rows}

    # A grey level is 219/255 of one in Y: -20 log10(4 * 219 / 255 / 255) = 37.41 dB, and 6.02 less for 8 levels.
    (line,) = [line for line in text.splitlines() if line.startswith("| moving | dark | ")]
    assert line.startswith("| moving | dark | 34.40 ± 4.26 |")
    assert "| moving | ntu | dark (2 seeds) |" in text
    with (tmp_path / "out" / "rows.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(rows)

    path = tmp_path / "out" / "rows.jsonl"
    path.write_text(path.read_text()[:-40])  # a kill while the last row is written
    assert quality.run(networks, protocol, tmp_path / "out") == text
    again = [json.loads(line) for line in path.read_text().splitlines()]
    assert again == rows, "the last row is taken again"


def test_doubled_frames_and_pans(quality: ModuleType, tmp_path: Path) -> None:
    clean = moving_texture(6, 32, 48)
    rainy, twins = quality.doubled(clean, 1)
    assert torch.equal(twins, clean[[0, 1, 2, 2, 3, 4]])
    assert torch.equal(rainy[2], rainy[3])
    assert not torch.equal(rainy[1], rainy[2])
    protocol = quality.Protocol({}, 3, 0, (1,), crop=(24, 30))
    panned = quality.panned(moving_texture(1, 32, 90).expand(3, -1, -1, -1), protocol)
    assert panned.shape == (3, 3, 24, 30)
    assert torch.equal(panned[1][..., :10], panned[0][..., 20:]), "a still picture moves by 20 pixels"


def test_the_films_are_those_that_the_configuration_tests_on(quality: ModuleType) -> None:
    from nas.run.config import load_config

    films = load_config("compact").task["test"]["films"]
    assert {Path(film).stem for film in films} == {name for names in quality.FILMS.values() for name in names}
