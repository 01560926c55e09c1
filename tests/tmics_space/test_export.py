"""The script of docs/export.md: an exported network derains a clip as `nas predict` does."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from nas.export import export
from nas.genotype import Genotype
from nas.space import find_space
from tmics_space.data import moving_texture, write_frames
from tmics_space.predict import derain_file

PAGE = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")


def test_ten_lines_derain_a_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (script,) = re.findall(r"```python\n(from pathlib.*?)```", PAGE, re.DOTALL)
    assert len([line for line in script.splitlines() if line]) == 10
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with write_frames("films/rainy") as write:
        for frame in moving_texture(6, 20, 24):
            write(frame)
    genotype = Genotype.load("tmics-light")
    options = {**genotype.options, "channels": 4, "dna_cells": 1, "cna_cells": 1}
    genotype = msgspec.structs.replace(genotype, options=options)
    network = find_space("tmics").derived(genotype).eval()
    for parameter in network.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    export(network, genotype, (torch.zeros(1, 5, 3, 20, 24),), Path("derainer.py"))
    try:
        exec(script, {})  # noqa: S102 - the page's own code
    finally:
        sys.modules.pop("derainer", None)
    derain_file(network, "films/rainy", "predicted")
    frames = sorted(Path("predicted").iterdir())
    assert len(frames) == 6
    for path in frames:
        assert np.array_equal(np.array(Image.open(path)), np.array(Image.open(Path("derained", path.name)))), path
    changed = np.array(Image.open(frames[0])).astype(int) - np.array(Image.open(Path("films/rainy", frames[0].name)))
    assert np.abs(changed).max() > 3
