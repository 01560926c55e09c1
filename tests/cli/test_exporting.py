"""`nas export`: each format of a retrained toy network, and what is refused."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import toy
from nas.compare.canonical_form import canon
from nas.front.running import retrain
from nas.genotype.file import Genotype
from nas.run.folder import read_records
from nas.run.retraining import load_network
from written import imported

Nas = Callable[..., Any]
Refused = Callable[..., str]
BRIEF = ("retrain.stages.backbone.steps=3", "retrain.stages.averaging.steps=2")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a retraining."""
    folder = tmp_path_factory.mktemp("run") / "net"
    retrain(Genotype(space="toy", choices=toy.DEAREST), toy.config(*BRIEF), out=folder)
    return folder


def test_source(nas: Nas, run: Path) -> None:
    result = nas("export", run)
    expected = f"{run}/network.py, {run}/network.safetensors: greatest difference of outputs 0\n"
    assert (result.code, result.out, result.err) == (0, expected, "")
    docstring = ast.get_docstring(ast.parse((run / "network.py").read_text())) or ""
    (score,) = [record["score"] for record in read_records(run) if record["kind"] == "evaluate"]
    canonical = canon(Genotype.load(run / "genotype.yaml")).canonical
    told = ("search space 'toy'", "    first: conv", "    channels: 4", f"    score: {score:.6g}", "(1, 2, 5, 5)")
    assert [part for part in (canonical, *told) if part not in docstring] == []
    x = torch.randn(3, 2, 5, 5)
    assert torch.equal(imported(run / "network.py").load()(x), load_network(run)(x))
    with safetensors.safe_open(run / "network.safetensors", "pt") as file:
        assert Genotype.parse(file.metadata()["genotype"]) == Genotype.load(run / "genotype.yaml")


def test_a_program(nas: Nas, run: Path, tmp_path: Path) -> None:
    result = nas("export", run, "--out", tmp_path / "deep" / "toy.pt2")  # the suffix picks the format
    expected = f"{tmp_path}/deep/toy.pt2: any batch size, any height and width; greatest difference of outputs "
    assert result.out.startswith(expected), result
    x = torch.randn(2, 2, 7, 4)
    found = torch.export.load(tmp_path / "deep" / "toy.pt2").module()(x)
    torch.testing.assert_close(found, load_network(run)(x))


def test_onnx(nas: Nas, run: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
    assert nas("export", run, "--format", "onnx").code == 0
    x = torch.randn(2, 2, 6, 9)
    session = runtime.InferenceSession(run / "network.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(["output"], {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), load_network(run)(x).detach(), atol=1e-4, rtol=0)


def test_weights(nas: Nas, run: Path) -> None:
    assert nas("export", run, "--format", "safetensors").out == f"{run}/network.safetensors: weights alone\n"
    weights = safetensors.torch.load_file(run / "network.safetensors")
    assert weights.keys() == load_network(run).state_dict().keys()


def test_mistakes(refused: Refused, run: Path, searched: Path, tmp_path: Path) -> None:
    assert "no retrained network" in refused("export", searched)
    assert "must be .pt2, got '.py'" in refused("export", run, "--format", "pt2", "--out", tmp_path / "net.py")
    assert "must be .onnx, got '.pt2'" in refused("export", run, "--format", "onnx", "--out", tmp_path / "net.pt2")
    message = refused("export", run, "--out", tmp_path / "net.onx")
    assert ".py (source), .pt2 (pt2), .onnx (onnx), .safetensors (safetensors); got '.onx'" in message
    assert "got 'my-net'" in refused("export", run, "--out", tmp_path / "my-net.py")
    assert "onnx" in refused("export", run, "--format", "tflite")
    assert not list(tmp_path.glob("*.p*"))
