"""Private names of PyTorch are in one file; nothing else of the project uses one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import nas
from nas.kernels import torch_internals

ROOT = Path(nas.__file__).parents[1]
FILES = [path for package in ("nas", "search_spaces", "tmics_space") for path in sorted((ROOT / package).rglob("*.py"))]
OBJECTS = (
    torch.ones(1),
    nn.Linear(1, 1),
    torch.ones(1).untyped_storage(),
    torch.ops.aten.add,
    torch.ops.aten.add.Tensor,
)
ATTRIBUTES = {name for each in OBJECTS for name in dir(each) if re.match("_[^_]", name)}
"""Private attributes of what PyTorch hands out."""


def is_private(path: str) -> bool:
    return any(re.match("_[^_]", part) for part in path.split("."))


def private_names(source: str) -> Iterator[str]:
    """Private names of PyTorch in a program: imports, attributes of its modules, and attributes of its objects."""
    tree = ast.parse(source)
    modules: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            paths = {each.asname or each.name.partition(".")[0]: each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            paths = {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
        else:
            continue
        paths = {name: path for name, path in paths.items() if path.partition(".")[0] == "torch"}
        modules |= {name: path if "." not in path or name != "torch" else "torch" for name, path in paths.items()}
        yield from filter(is_private, paths.values())
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            path = ast.unparse(node)
            first, _, rest = path.partition(".")
            if first in modules and is_private(node.attr):
                yield f"{modules[first]}.{rest}"
            elif first not in ("self", "cls") and node.attr in ATTRIBUTES:
                yield path
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in ATTRIBUTES:
            yield node.value  # `getattr(module, "_modules")`
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "super" and node.args:
            yield ast.unparse(node)  # skips a class of PyTorch


def test_no_other_file_uses_a_private_name() -> None:
    here = Path(torch_internals.__file__)
    assert here in FILES
    found = {
        str(path.relative_to(ROOT)): names
        for path in FILES
        if path != here and (names := list(private_names(path.read_text())))
    }
    assert not found


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import torch._dynamo", "torch._dynamo"),
        ("from torch.utils._pytree import tree_map", "torch.utils._pytree.tree_map"),
        ("from torch.overrides import _f as f", "torch.overrides._f"),
        ("import torch\ntorch._C._f(1)", "torch._C._f"),
        ("import torch.nn.functional as F\nF._f", "torch.nn.functional._f"),
        (
            "from torch.autograd import forward_ad\nforward_ad._current_level",
            "torch.autograd.forward_ad._current_level",
        ),
        ("def f(x): return x[0]._version", "x[0]._version"),
        ("def f(m): return m.layer._buffers", "m.layer._buffers"),
        ("vars(m)['_modules']", "_modules"),
        ("super(Function, f).apply(1)", "super(Function, f)"),
    ],
)
def test_each_kind_of_use_is_found(source: str, name: str) -> None:
    assert name in list(private_names(source))


def test_public_names_are_no_finding() -> None:
    source = "import torch\nclass A:\n  def f(self): self._version = torch.__version__, super().f(), torch.nn.Linear"
    assert not list(private_names(source))


def test_each_private_name_has_a_reason() -> None:
    """Each section or function of the file says why there is no public name."""
    tree = ast.parse(Path(torch_internals.__file__).read_text())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert functions
    assert all(ast.get_docstring(node) for node in functions)
