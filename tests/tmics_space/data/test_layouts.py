"""Descriptions of paired data sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas.errors import InvalidFileError, UnknownNameError
from tmics_space.data.layouts import LAYOUTS, Layout, find_layout

OWN = """
summary: our own
clip: scene_[a-z]+
frame: \\d{4}
crop: 8
splits:
  day: {rain: "wet/{clip}/f{frame}", truth: "dry/{clip}/f{frame}"}
"""


def test_shipped_layouts() -> None:
    names = {"rainsyn-light-a", "rainsyn-complex-b", "rainsyn-c", "nturain", "rainvid", "vrds", "pairs"}
    assert names <= LAYOUTS.names().keys()
    assert all(layout.summary and layout.splits for _, layout in LAYOUTS.working())
    assert find_layout("nturain") is LAYOUTS.find("nturain")
    assert find_layout(LAYOUTS.find("vrds")) is LAYOUTS.find("vrds")


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"layout 'nturains' \(did you mean 'nturain'\?\)"):
        find_layout("nturains")
    with pytest.raises(UnknownNameError, match=r"split 'tset'.*did you mean 'test'"):
        find_layout("nturain").split("tset")


def test_a_layout_of_the_user(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(OWN)
    layout = find_layout(path)
    assert isinstance(layout, Layout)
    assert layout == find_layout(str(path))
    assert layout.crop == 8
    match = layout.pattern("f{frame}").fullmatch("f0042")
    assert match is not None
    assert match["frame"] == "0042"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("crop: 8", "crop: 0", "crop must be at least 1, got 0"),
        ("crop: 8", "corp: 8", r"unknown field 'corp' \(did you mean 'crop'\?\)"),
        ("rain: ", "rainy: ", "unknown field 'rainy'"),
        ('/f{frame}"}', '/f"}', r"splits\.day: 'dry/\{clip\}/f' has no \{frame\}"),
        ("wet/{clip}", "wet/fixed", r"'wet/fixed/f\{frame\}' has no \{clip\}"),
        ("scene_[a-z]+", "scene_(", "is not a regular expression"),
        ("splits:", "splits: [", "not valid YAML"),
        ("crop: 8", "crop: 8\ncrop: 16", "key 'crop' is given twice"),
        ("scene_[a-z]+", "a{99999999999}", "is not a regular expression"),
    ],
)
def test_bad_layouts(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(OWN.replace(old, new))
    with pytest.raises(InvalidFileError, match=rf"own\.yaml(:\d+)?: .*{message}"):
        find_layout(path)


def test_a_missing_layout_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match=r"none\.yaml: cannot be read"):
        find_layout(tmp_path / "none.yaml")
