"""`render` and `save`: formats by name and by suffix."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas.draw.rendering import FORMATS, SUFFIXES, render, save
from nas.errors import ConfigError, InvalidFileError, SpaceError, UnknownNameError
from nas.genotype.file import Genotype
from nas.space.definition import Description

CHOICES = {"alignment": "ofm", "frequency": "none", **{f"row/{i}": "dense_5x5" for i in range(1, 5)}}


def test_formats(restoration: Description) -> None:
    assert render(restoration).startswith("<svg ")
    assert render(restoration, None, "dot").startswith("digraph")
    assert render(restoration, None, "text").startswith("toy-restoring\n")


def test_a_genotype_is_drawn_with_its_own_options(restoration: Description) -> None:
    genotype = Genotype(space="toy-restoring", options={"cells": 2}, choices=CHOICES)
    assert "cells ×2" in render(restoration, genotype, "text")
    assert "cells ×4" in render(restoration, CHOICES, "text")


def test_unknown_format(restoration: Description) -> None:
    with pytest.raises(UnknownNameError, match=r"format 'sgv' .*'svg'"):
        render(restoration, None, "sgv")  # type: ignore[call-overload]


def test_a_genotype_of_another_space(restoration: Description) -> None:
    with pytest.raises(SpaceError, match=r"'toy-restoring', got 'other'"):
        render(restoration, Genotype(space="other", choices={}))


@pytest.mark.parametrize("suffix", [".svg", ".dot", ".gv", ".txt", ".SVG"])
def test_save_takes_the_format_from_the_suffix(restoration: Description, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"picture{suffix}"
    save(path, restoration, CHOICES)
    assert path.read_text(encoding="utf-8") == render(restoration, CHOICES, SUFFIXES[suffix.lower()])


def test_every_format_has_a_suffix() -> None:
    assert set(SUFFIXES.values()) == set(FORMATS)


@pytest.mark.parametrize("name", ["picture.jpg", "picture"])
def test_unknown_suffix(restoration: Description, tmp_path: Path, name: str) -> None:
    with pytest.raises(UnknownNameError, match=r"\.svg, \.dot, \.gv, \.png, \.pdf, \.mmd, "):
        save(tmp_path / name, restoration)
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_without_dot(
    restoration: Description, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="graphviz"):
        save(tmp_path / "picture.pdf", restoration)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written(restoration: Description, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidFileError, match=r"file/picture\.svg"):
        save(tmp_path / "file" / "picture.svg", restoration)
