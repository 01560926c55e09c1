"""Networks as source: equal to the last bit, trainable, alone with torch, readable; what cannot be carried is named."""

from __future__ import annotations

import ast
import functools
import py_compile
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import crafted
from crafted import derived
from nas.errors import ExportError
from nas.export import isolated
from nas.export.equality import greatest_difference
from nas.export.source.module import own_packages, write_source
from nas.genotype.file import Genotype, shipped
from nas.run import checkpoint
from nas.space.definition import find_space

Write = Callable[..., ModuleType]
SMALL = {"channels": 4, "dna_cells": 1, "cna_cells": 2}
VARIANTS: dict[str, dict[str, Any]] = {
    "no flow": {"flow": "zero", "averaging": "free", "normalize": "batch", "dna_input": "concat"},
    "dominant alone": {
        "flow": {"name": "pyramid", "width": 4},
        "averaging": "legacy",
        "normalize": "group",
        "cna_cells": 0,
    },
    "companion alone": {"dna_cells": 0, "averaging": "fixed"},
    "untied": {"streaks": False, "averaging": "pixel", "frames": 3},
}


def tmics(name: str, **options: Any) -> nn.Module:
    """A shipped genotype's network, small."""
    genotype = Genotype.load(name)
    genotype = msgspec.structs.replace(genotype, options={**genotype.options, **SMALL, **options})
    network = find_space("tmics").derived(genotype, seed=3)
    for parameter in network.parameters():  # those that start at zero would hide what they multiply
        parameter.data += 0.01 * torch.randn_like(parameter)
    return network.eval()


def clip(frames: int = 5) -> Tensor:
    return torch.rand(2, frames, 3, 18, 23)


def check_equal(network: nn.Module, other: nn.Module, x: Tensor) -> None:
    """Outputs, names of weights, gradients and buffers of a training step are equal."""
    assert list(other.state_dict()) == list(network.state_dict())
    with torch.no_grad():
        assert greatest_difference(network(x), other(x)) == 0
    assert [p.requires_grad for p in other.parameters()] == [p.requires_grad for p in network.parameters()]
    gradients = []
    for each in (network, other):
        each.train()
        torch.manual_seed(5)
        outputs = [leaf for leaf in tree_leaves(each(x)) if leaf.requires_grad]
        torch.stack([output.square().mean() for output in outputs]).sum().backward()
        gradients.append({name: parameter.grad for name, parameter in each.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        assert (gradient is None) == (gradients[1][name] is None)
        assert gradient is None or torch.equal(gradient, gradients[1][name]), name
    for (name, a), (_, b) in zip(network.named_buffers(), other.named_buffers(), strict=True):
        assert torch.equal(a, b), name


# Equal


@pytest.mark.parametrize("name", [name for name in shipped() if name.startswith("tmics")])
def test_a_shipped_genotype(name: str, write: Write) -> None:
    network = tmics(name)
    check_equal(network, write(network).load(), clip())


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_options_of_tmics(options: dict[str, Any], write: Write) -> None:
    network = tmics("tmics-light", **options)
    check_equal(network, write(network).load(), clip(options.get("frames", 5)))


@pytest.mark.parametrize("seed", range(6))
def test_random_genotypes_of_all_decisions(seed: int, write: Write) -> None:
    network = derived(seed)
    check_equal(network, write(network).load(), torch.randn(2, 3, 7, 9))


def test_the_written_network_learns(write: Write) -> None:
    network = write(tmics("tmics-light")).load().train()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    x = clip()
    losses = []
    for _ in range(5):
        loss = F.l1_loss(network(x).output, x[:, 2] * 0.5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]


def test_what_is_shared_stays_shared(write: Write) -> None:
    shared = crafted.Shared(3)
    loaded = write(shared).load()
    assert loaded.second[1] is loaded.first
    assert loaded.fourth.weight is loaded.third.weight
    assert len(list(loaded.parameters())) == len(list(shared.parameters()))


def test_weights_lie_as_torch_has_them(write: Write) -> None:
    network = derived(0).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert not all(parameter.is_contiguous() for parameter in network.parameters())
    assert all(parameter.is_contiguous() for parameter in write(network).load().parameters())


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(nn.Conv2d(3, 4, (3, 1), padding=(1, 0), bias=False), nn.BatchNorm2d(4, affine=False)),
        lambda: nn.Sequential(
            nn.ConvTranspose2d(3, 4, 2, stride=2), nn.PReLU(4), nn.Upsample(scale_factor=2), nn.Softmax(1)
        ),
        lambda: nn.Sequential(nn.Flatten(2), nn.LayerNorm((35,)), nn.Linear(35, 2, bias=False), nn.GELU("tanh")),
        lambda: nn.Sequential(
            nn.Conv2d(3, 3, 3, padding="same", padding_mode="circular", dtype=torch.float32), nn.Dropout2d(0.4)
        ),
        lambda: (
            nn.Sequential(nn.Flatten(2), nn.MultiheadAttention(35, 5, batch_first=True))
            and nn.AdaptiveAvgPool2d((None, 2))
        ),
        lambda: nn.Sequential(nn.Sequential(), nn.Identity(), nn.MaxPool2d(2, ceil_mode=True), nn.AvgPool2d(2)),
    ],
)
def test_layers_of_torch(make: Callable[[], nn.Module], write: Write) -> None:
    network = make().eval()
    loaded = write(network).load()
    assert repr(loaded) == repr(network)
    x = torch.randn(2, 3, 5, 7)
    assert torch.equal(loaded(x), network(x))


class Base(nn.Module):
    """A class that has modules of its own, and that another derives from."""

    scale = 3.0

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.shift = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.changed(self.layer(x)) + self.shift

    def changed(self, x: Tensor) -> Tensor:
        return x * self.scale


class Child(Base):
    def __init__(self, more: bool) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.ones(2))
        if more:
            self.other = nn.Linear(2, 2)

    def changed(self, x: Tensor) -> Tensor:
        x = super().changed(x) + self.bias
        return self.other(x) if hasattr(self, "other") else x


def test_classes_that_derive_from_one_another(write: Write) -> None:
    network = nn.Sequential(Base(), Child(True), Child(False))
    check_equal(network.eval(), write(network).load(), torch.randn(3, 2))


def test_double_precision(write: Write) -> None:
    network = derived(2).double()
    x = torch.randn(2, 3, 7, 9, dtype=torch.float64)
    loaded = write(network).load()
    assert {p.dtype for p in loaded.parameters()} == {torch.float64}
    assert torch.equal(loaded(x).output, network(x).output)


# Alone, readable


@pytest.mark.parametrize("name", ["tmics-light", pytest.param("crafted", marks=pytest.mark.slow)])
def test_a_file_is_good_python_by_itself(name: str, tmp_path: Path) -> None:
    network = derived(1) if name == "crafted" else tmics(name)
    text, tensors = write_source(network, f"About {name}.")
    file = tmp_path / "network.py"
    file.write_text(text, encoding="utf-8")
    checkpoint.save_weights(file.with_suffix(".safetensors"), tensors, {"genotype": "none"})
    py_compile.compile(str(file), cfile=str(tmp_path / "compiled"), doraise=True)
    subprocess.run([sys.executable, "-m", "ruff", "check", "--isolated", "--quiet", str(file)], check=True)
    imported = {
        (node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name).partition(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    assert imported - {*sys.stdlib_module_names} == {"torch"}
    assert not any(word in text for word in ("ConfigError", "SpaceError", "noqa", "type: ignore"))
    x = torch.randn(1, 3, 9, 8) if name == "crafted" else clip()
    hidden = {*own_packages(network), "safetensors", "numpy", "msgspec"}
    with torch.no_grad():
        assert greatest_difference(network(x), isolated.outputs(file, [x], hidden)) == 0


def test_what_recurs_is_written_once() -> None:
    text, _ = write_source(tmics("tmics-heavy", dna_cells=4, cna_cells=4), "Heavy.")
    assert text.startswith('"""Heavy."""\n')
    assert "cells=nn.Sequential(*(chain() for _ in range(4)))" in text
    assert text.count("class Attention(nn.Module)") == 1
    assert "def residual(kernel_size: int, padding: int) -> nn.Sequential:" in text
    assert "# The variance is a small difference of large numbers" in text, "comments stay"
    assert '"""The mean over the pixels of each window' in text, "and docstrings"
    assert "rain_dictionary" not in text.replace("`rain_dictionary", ""), "what made the network does not come along"
    assert "load_library" not in text, "exported files load no compiled code"
    bodies = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef) and node.name != "load"]
    assert max((node.end_lineno or 0) - node.lineno for node in bodies) < 45


def test_checks_of_a_search_stay_behind() -> None:
    space = find_space("darts")
    network = space.derived(
        msgspec.structs.replace(Genotype.load("darts-v2"), options=space.options(channels=4, cells=3))
    )
    before = [type(module) for module in network.modules()]
    text, _ = write_source(network, "a network")
    assert "class Node" in text
    assert not {"Unchanged", "countable", "_functorch", "MixedOperation"} & set(re.findall(r"\w+", text))
    assert [type(module) for module in network.modules()] == before


def test_names_of_two_modules_do_not_clash() -> None:
    text, _ = write_source(crafted.Gate(3), "A gate.")
    tree = ast.parse(text)
    assert [node.name for node in tree.body if isinstance(node, ast.FunctionDef)] == [
        "_times",
        "scaled_2",
        "doubled",
        "build",
        "load",
    ]
    assert "# A comment that stays." in text
    assert "_build" not in text


def test_positions_behind_characters_of_several_bytes(write: Write) -> None:
    x = torch.rand(2, 3)
    assert torch.equal(write(crafted.Umlauts()).load()(x), crafted.Umlauts()(x))


# What cannot be carried


class WithNumpy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + float(np.float32(1))


class WithImport(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        import numpy

        return x + float(numpy.float32(1))


class WithHelper(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return helper(x)


def helper(x: Tensor) -> Tensor:
    return torch.from_numpy(np.asarray(x))


class Holding(nn.Module):
    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return x if self.value is None else -x


class Extended(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return self.more(x)  # type: ignore[no-any-return,operator]


Extended.more = lambda self, x: x  # type: ignore[assignment]


def enclosed(scale: float) -> nn.Module:
    class Enclosed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return scale * x

    return Enclosed()


def hooked() -> nn.Module:
    layer = nn.Linear(2, 2)
    layer.register_forward_hook(lambda *_: None)
    return layer


def changed() -> nn.Module:
    layer = nn.Conv2d(2, 2, 1)
    layer.more = 3  # type: ignore[assignment]
    return layer


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (WithNumpy, r"1: 'WithNumpy' of \S+ uses 'numpy'; what is exported needs torch alone"),
        (WithImport, r"1: 'WithImport' of \S+ imports 'numpy' when it runs"),
        (WithHelper, r"1: 'helper' of \S+ uses 'numpy'"),
        (lambda: Holding(lambda x: x), r"1: the attribute 'value' is a lambda"),
        (lambda: Holding(threading.Lock()), r"1: the attribute 'value' is a lock"),
        (lambda: Holding([nn.ReLU()]), r"1: the attribute 'value' is a ReLU"),
        (lambda: Holding(np.float32(1)), r"1: the attribute 'value' is a float32"),
        (lambda: Holding(functools.partial(helper)), r"'helper' of \S+ uses 'numpy'"),
        (Extended, r"1: 'Extended' of \S+ got its method 'more' from outside its body"),
        (lambda: enclosed(2.0), r"uses its variables \(scale\): define it at the top level"),
        (hooked, r"1 has forward hooks"),
        (changed, r"1: a Conv2d that was changed after it was made \(more\)"),
        (lambda: nn.LazyLinear(2), r"1 is lazy and has no weights yet"),
        (
            lambda: nn.TransformerEncoderLayer(4, 2),
            r"1: a TransformerEncoderLayer does not tell its argument 'd_model'",
        ),
    ],
)
def test_what_cannot_be_carried_is_named(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        write_source(nn.Sequential(nn.Identity(), make()), "Broken.")


def test_a_flow_by_opencv_is_refused() -> None:
    with pytest.raises(ExportError, match=r"^alignment.ofm.flow: 'DenseInverseSearch' of .* uses 'numpy'"):
        write_source(tmics("tmics-light", flow="dis"), "Classical flow.")


def test_a_class_from_a_prompt_has_no_source() -> None:
    space: dict[str, Any] = {"nn": nn, "__name__": "nowhere"}
    exec("class Typed(nn.Module):\n    def forward(self, x): return x", space)  # noqa: S102 - as a prompt does
    with pytest.raises(ExportError, match="'Typed' of nowhere has no source that can be read"):
        write_source(nn.Sequential(space["Typed"]()), "Typed.")


def test_a_local_class_without_variables_is_carried(write: Write) -> None:
    class Local(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.size = size

        def forward(self, x: Tensor) -> Tensor:
            """Text
            of lines."""
            return F.relu(x) * self.size

    x = torch.rand(2, 3)
    assert torch.equal(write(nn.Sequential(Local(3))).load()(x), 3 * x)
