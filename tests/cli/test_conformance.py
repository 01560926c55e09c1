"""`nas check` on parts of every kind."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

import nas as package
import toy
from nas.cli.conformance import CHECKS, Checked
from nas.registry import kind
from nas.testing import RelaxationTests

Nas = Callable[..., Any]


@pytest.fixture
def _broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken relaxation, `broken`, and names that belong to two kinds."""
    for each in ("relaxation", "regularizer"):
        monkeypatch.setattr(kind(each), "_registered", dict(kind(each)._registered))
        monkeypatch.setattr(kind(each), "_origins", dict(kind(each)._origins))

    @package.register("relaxation", "broken")
    class Broken(nn.Module):
        def forward(self, logits: Tensor) -> Tensor:
            if len(logits) == 2:
                raise RuntimeError("two\nlogits")
            return torch.ones_like(logits)

    package.register("relaxation", "toy-twice")(Broken)
    package.register("regularizer", "toy-twice")(lambda supernet: torch.zeros(()))


@pytest.mark.parametrize(
    ("arguments", "title", "count"),
    [
        (("softmax", "temperature=2"), "relaxation 'softmax'", 10),
        (("neumann", "terms=60", "step_size=0.4", "--approximates", "optimum"), "hypergradient 'neumann'", 7),
        (("finite_difference", "--tolerance", "1e-3"), "hypergradient 'finite_difference'", 7),
        (("entropy", "--space", "toy"), "regularizer 'entropy'", 6),
        (("budgeted", "params=500"), "derivation 'budgeted'", 4),
        (("adam", "lr=0.1"), "optimizer 'adam'", 5),
        (("darts_plus", "cell=cell", "skips=1"), "stopping rule 'darts_plus'", 4),
        (
            ("nas-bench-201", "--kind", "exporter", "--space", "{name: nas-bench-201, channels: 2, cells: 1}"),
            "exporter 'nas-bench-201'",
            3,
        ),
        (("sep_conv", "kernel=5", "--input", "3x4x7x5"), "operation 'sep_conv'", 10),
        (("toy", "channels=2", "--kind", "search space", "--input", "2x2x5x5"), "search space 'toy'", 13),
        (
            ("toy", "batch=2", "--kind=task", "--space={name: toy, channels: 2}", "--split=train", "--split=middle"),
            "task 'toy'",
            8,
        ),
        (("nas.relaxation.softmax:Softmax", "--kind", "relaxation"), "relaxation 'nas.relaxation.softmax:Softmax'", 10),
    ],
)  # fmt: skip
def test_a_table_of_tests(nas: Nas, arguments: tuple[str, ...], title: str, count: int) -> None:
    result = nas("check", *arguments)
    assert result.code == 0, result.out
    assert result.out.startswith(f"{title}\n")
    assert len(re.findall(r"^.* passed$", result.out, re.MULTILINE)) == count + 1
    assert result.out.endswith(f"\n{count} passed\n")


@pytest.mark.usefixtures("_broken")
def test_a_failed_test_is_exit_code_1(nas: Nas) -> None:
    result = nas("check", "broken", "--unnormalized")
    assert result.code == 1
    assert re.search(r"^mixing weights are shares +RuntimeError: two logits$", result.out, re.MULTILINE)
    assert re.search(r"^the gradient equals finite differences +passed$", result.out, re.MULTILINE)
    tests = [name for name in dir(RelaxationTests) if name.startswith("test_")]
    assert re.search(rf"^\d+ of {len(tests)} failed$", result.out, re.MULTILINE)


@pytest.mark.usefixtures("_broken")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("softmx",), r"'softmx' \(did you mean 'softmax'\?\).*--import MODULE"),
        (("softmax", "temprature=2"), r"relaxation\.temprature .*\(did you mean 'temperature'\?\)"),
        (("softmax", "temperature=0"), r"relaxation\.temperature must be above 0, got 0"),
        (("softmax", "temperature"), "must be name=value, got 'temperature'"),
        (("toy-twice",), r"--kind must .*'toy-twice' .* relaxation and of a regularizer"),
        (("softmax", "--space", "toy"), "--space must not .*'softmax'"),
        (("toy", "--kind", "search space"), "--input must be given .*'toy'"),
        (("toy", "--kind", "task"), "--space must be given .*'toy'"),
        (("toy", "--kind", "search space", "chanels=2", "--input", "2x2x5x5"), r"'chanels' \(did you mean 'channels'"),
        (("toy", "--kind", "task", "batch=x", "--space", "toy"), r"task.*batch"),
        (("toy", "--kind", "task", "--space", "[toy]"), r"--space must .*got '\[toy\]'"),
        (("toy", "--kind", "task", "--space", "{name: toy, x: 1}"), "'x'"),
        (("sep_conv", "kernels=5"), r"kernels is not .*'sep_conv' \(did you mean 'kernel'\?\)"),
        (("sep_conv", "--input", "1x8x7x5"), "--input must be a shape .*got '1x8x7x5'"),
        (("sep_conv", "--input", "2x8x7x5", "--input", "2x8x7x5"), "--input must be given once .*got 2"),
        (("neumann", "--approximates", "optimal"), "optimal"),
        (("budgeted", "param=500"), r"param is not .*\(did you mean 'params'\?\)"),
        (("cosine", "final_lr=2"), r"schedule\.final_lr must be at most 1, got 2"),
        (("darts", "--kind", "exporter"), "--space must be given .*'darts'.* got nothing"),
    ],
)
def test_mistakes(refused: Callable[..., str], arguments: tuple[str, ...], message: str) -> None:
    assert toy.SPLITS  # its parts are registered
    assert re.search(message, refused("check", *arguments))


def test_help_teaches(nas: Nas) -> None:
    out = " ".join(nas("check", "--help").out.split())
    for told in ("exit code is 1 if one fails", "name=value", "nas.testing", "2x3x32x32", "--kind"):
        assert told in out


def test_every_kind_can_be_named() -> None:
    assert {*get_args(Checked)} == {*CHECKS}
