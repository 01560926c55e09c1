"""The repository itself: what its files may say, what its code may call, and what its packaging promises."""

from __future__ import annotations

import ast
import fnmatch
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGES = ("nas", "search_spaces", "tmics_space")
MODULES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def texts() -> Iterator[tuple[str, str]]:
    """(path in the repository, text) of every text file that git does not ignore."""
    ignored = [".git", *(line.strip("/") for line in (ROOT / ".gitignore").read_text().split())]
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if not any(fnmatch.fnmatch(name, i) for i in ignored)]
        for path in (Path(folder, name) for name in names):
            try:
                yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue  # a picture or weights


# Each pattern is written so that it does not match itself.
@pytest.mark.parametrize(
    ("forbidden", "exempt"),
    [
        (r"\bshared[/]", ".ci/run"),
        (r"(?<![\w.~-])[/](work|root|home)/", None),
        (r"pypi[.]org|pythonhosted[.]org|download[.]pytorch[.]org|index[-]url|find[-]links", None),
    ],
    ids=["data beside the clone", "a machine's path", "a registry"],
)
def test_files_name_nothing_outside_the_project(forbidden: str, exempt: str | None) -> None:
    found = [
        f"{path}: {match[0]}" for path, text in texts() if path != exempt for match in re.finditer(forbidden, text)
    ]
    assert not found


def unsafe(tree: ast.AST) -> Iterator[str]:
    """The calls and imports in `tree` through which a file could run code."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (n.name for n in names if n.name.split(".")[0] in {"pickle", "marshal", "dill"})
            case ast.ImportFrom(module="pickle", names=[ast.alias(name="UnpicklingError")]):
                pass  # the error that `torch.load` raises
            case ast.ImportFrom(module="pickle" | "marshal" | "dill" as module):
                yield module
            case ast.Call(func=ast.Name(id="eval" | "exec" | "compile" as name)):
                yield name
            case ast.Call(func=ast.Attribute(ast.Name("yaml"), "load" | "load_all" | "unsafe_load" as name)):
                yield f"yaml.{name}"
            case ast.Call(func=ast.Attribute(ast.Name("torch"), "load"), keywords=keywords):
                if not any(
                    k.arg == "weights_only" and isinstance(k.value, ast.Constant) and k.value.value is True
                    for k in keywords
                ):
                    yield "torch.load without weights_only=True"


def test_packages_run_no_code_from_files() -> None:
    found = {
        str(path.relative_to(ROOT)): calls
        for path in MODULES
        if (calls := list(unsafe(ast.parse(path.read_text(encoding="utf-8")))))
    }
    assert not found


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("import pickle, os", 1),
        ("from marshal import loads", 1),
        ("from pickle import UnpicklingError", 0),
        ("from pickle import UnpicklingError, loads", 1),
        ("eval(text); exec(text); compile(text, '', 'eval')", 3),
        ("yaml.load(text, Loader)", 1),
        ("torch.load(path); torch.load(path, weights_only=False)", 2),
        ("model.eval(); re.compile(x); yaml.safe_load(text); torch.load(path, weights_only=True)", 0),
    ],
)
def test_unsafe_calls_are_seen(code: str, count: int) -> None:
    assert len(list(unsafe(ast.parse(code)))) == count


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_are_typed(package: str) -> None:
    assert (ROOT / package / "__init__.py").is_file()
    assert (ROOT / package / "py.typed").is_file()


def test_versions_agree() -> None:
    version = PROJECT["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == version
    assert f"\n## {version} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_entry_points_name_modules_of_the_packages() -> None:
    groups = [PROJECT["scripts"], *PROJECT["entry-points"].values()]
    names = [target.split(":")[0].replace(".", "/") for group in groups for target in group.values()]
    files = {path.relative_to(ROOT).as_posix() for path in MODULES}
    assert [name for name in names if not {f"{name}.py", f"{name}/__init__.py"} & files] == []


def test_constraints_pin_every_dependency() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.]+", pin)] == []
    wanted = [*PROJECT["dependencies"], *(d for e in PROJECT["optional-dependencies"].values() for d in e)]
    names = {distribution(requirement) for requirement in wanted} - {PROJECT["name"]}
    assert names - {distribution(pin) for pin in pins} == set()


def distribution(requirement: str) -> str:
    """The normalized name that a requirement begins with."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement)[0]).lower()
