"""The script of docs/export.md: an exported network derains a clip as `nas predict` does."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import nas
from nas.export.exporting import SUFFIXES, Format, export
from nas.genotype.file import Genotype
from nas.run.folder import GENOTYPE
from nas.run.models import model_folder
from nas.space.definition import find_space
from tmics_space.data import moving_texture, write_frames
from tmics_space.predict import derain_file
from written import imported

PAGE = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")


HALF_SIZE = Genotype(
    space="tmics",
    options={
        "channels": 4,
        "dna_cells": 1,
        "cna_cells": 1,
        "layers": 2,
        "scale": 2,
        "flow": {"name": "pyramid", "width": 4, "levels": 2, "finest": 4},
        "consistency": ["photometric"],
        "operations": "tmics-compact",
    },
    choices={
        "alignment": "ofm",
        "consistency": "photometric",
        "frequency": "none",
        "cell/1": "gated_3x3",
        "cell/2": "inverted_7x7",
    },
)


def read(path: Path, format: Format) -> Callable[[Tensor], list[Tensor]]:
    """What computes the outputs from a file alone."""
    if format == "source":
        network = imported(path).load()
        return lambda x: list(network(x))
    if format == "pt2":
        program = torch.export.load(path).module()
        return lambda x: list(program(x).values())
    session = pytest.importorskip("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return lambda x: [torch.from_numpy(output) for output in session.run(None, {given.name: x.numpy()})]


def half_size() -> tuple[nn.Module, Genotype]:
    """A small network of the space's other parts, with random weights."""
    torch.manual_seed(0)
    network = find_space("tmics").derived(HALF_SIZE).eval()
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return network, HALF_SIZE


def shipped() -> tuple[nn.Module, Genotype]:
    """The network that ships."""
    return nas.load("tmics-compact"), Genotype.load(model_folder("tmics-compact") / GENOTYPE)


@pytest.mark.parametrize("made", [half_size, shipped])
@pytest.mark.parametrize(
    ("format", "tolerance"),
    [
        ("source", 0.0),
        pytest.param("pt2", 1e-5, marks=pytest.mark.slow),
        pytest.param("onnx", 1e-4, marks=pytest.mark.slow),
    ],
)
def test_a_network_at_half_size_is_exported_for_odd_sizes_too(
    format: Format, tolerance: float, made: Callable[[], tuple[nn.Module, Genotype]], tmp_path: Path
) -> None:
    if format == "onnx":
        pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
    network, genotype = made()
    path = tmp_path / f"network{SUFFIXES[format]}"
    export(network, genotype, (torch.zeros(1, 5, 3, 40, 72),), path, format)
    exported = read(path, format)
    torch.manual_seed(1)
    for size in ((40, 72), (27, 33), (16, 17), (96, 64)):
        frames = torch.rand(1, 5, 3, *size)
        with torch.no_grad():
            for found, expected in zip(exported(frames), network(frames), strict=True):
                torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
            assert (network(frames).output - frames[:, 2]).abs().max() > 0.01


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
