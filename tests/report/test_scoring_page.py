from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from nas.report import scoring_page
from nas.report.scoring_page import write_scoring
from nas.run.scoring import Exhibit, Picture, Scoring
from parsed_page import Page


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_the_page_escapes_everything_and_loads_nothing(scoring: Scoring, tmp_path: Path) -> None:
    text = write_scoring(scoring, tmp_path).path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.handlers == []
    assert [link for link in page.links if not link.startswith(("#", "data:image/webp;base64,"))] == []
    assert len(page.ids) == len(set(page.ids))
    for hostile in ("<script>alert", "<b>rainy", "<i>", "<profiles>", "<x>", "protocol <1>"):
        assert hostile not in text
    told = " ".join(page.text.split())
    for shown in ("a <script>alert(1)</script>, frame 3", "protocol <1>", "Orange & blue", "clip <x>: frame 4"):
        assert shown in told
    assert "2 clips; 6 frames scored per method" in told


def test_the_files_have_every_score(scoring: Scoring, tmp_path: Path) -> None:
    write_scoring(scoring, tmp_path)
    clips, frames = rows(tmp_path / "clips.csv"), rows(tmp_path / "frames.csv")
    assert clips[0] == ["clip", "method", "psnr", "ssim", "share"], "without what nobody has"
    assert clips[1] == [next(iter(scoring.parts)), "<b>rainy", "20", "", "0.25"]
    assert frames[0] == ["clip", "frame", "method", "psnr"]
    assert [row[1] for row in frames[1:]] == [*"112233"] * 2, "in the order of clips and frames"
    assert len(frames) == 13


def test_pictures_beyond_the_room_are_named_without_one(
    scoring: Scoring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = torch.randint(256, (3, 300, 1200), dtype=torch.uint8)
    large = scoring._replace(worst=[Exhibit("noise", [[Picture("first", noise)]])], exhibits={})
    text = write_scoring(large, tmp_path / "a").path.read_text()
    assert 'width="960" height="240"' in text
    monkeypatch.setattr(scoring_page, "BYTES", 1000)
    text = write_scoring(large, tmp_path / "b").path.read_text()
    assert "no room for this picture" in text
    assert "data:image" not in text
