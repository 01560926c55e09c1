"""The repository itself: what its files may say, what its code may call, and what its packaging promises."""

from __future__ import annotations

import ast
import fnmatch
import importlib
import os
import pkgutil
import re
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PACKAGES = ("nas", "search_spaces", "tmics_space")
MODULES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def texts() -> Iterator[tuple[str, str]]:
    """(path in the repository, text) of every text file that git does not ignore."""
    ignored = [".git", *(line.strip("/") for line in (ROOT / ".gitignore").read_text().split())]
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if not any(fnmatch.fnmatch(name, i) for i in ignored)]
        for path in (Path(folder, name) for name in names if name != ".git"):  # of a worktree
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


SHARED_NAMES = {
    "benchmarking": "a Python function, and the command that calls it",
    "task": "the base class, its conformance tests, and the task of each plugin",
    "table": "what a table is, and its conformance tests",
    "observer": "what an observer is, and its conformance tests",
    "relaxation": "what a relaxation is, and its conformance tests",
    "score": "what a score is, and its conformance tests",
    "searcher": "what a searcher is, and its conformance tests",
    "wrapper": "what a wrapper is, and its conformance tests",
    "perturbation": "that of DARTS-PT and that of SmoothDARTS, both by the names in their papers",
    "predict": "prediction by the task of each plugin",
    "operations": "the registry of operations, and the operations of each plugin",
    "images": "reading any image file, and the images of a data set",
    "models": "a Python function, and the command that calls it",
    "correlating": "a Python function, and the command that calls it",
    "scores": "those of the untrained networks of a table, and those of derained films",
    "darts": "a search space, and the importer of its genotypes",
    "nas_bench_201": "a search space, and the importer of its genotypes",
    "planning": "a Python function, and the command that calls it",
    "running": "a Python function, and the command that calls it",
    "targets": "a Python function, and the command that calls it",
    "tuning": "a Python function, and the command that calls it",
}
"""Names that modules of several folders may have, with the reason."""


def test_modules_have_names_of_their_own() -> None:
    folders: dict[str, list[str]] = {}
    for path in MODULES:
        if path.stem not in ("__init__", "__main__"):
            folders.setdefault(path.stem, []).append(path.parent.relative_to(ROOT).as_posix())
    assert {name: places for name, places in folders.items() if len(places) > 1 and name not in SHARED_NAMES} == {}
    assert [name for name in SHARED_NAMES if len(folders.get(name, [])) < 2] == []


def shadows(path: Path, tree: ast.Module) -> list[str]:
    """The names that the module at `path` binds at its top level, and that are also names of modules."""
    inside = {each.stem if each.suffix == ".py" else each.name for each in path.parent.iterdir()}
    modules = inside if path.stem == "__init__" else {path.stem}
    bound = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    if path.stem == "__init__":
        bound += [
            alias.asname or alias.name
            for node in tree.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
            if not (ROOT / f"{node.module}".replace(".", "/") / f"{alias.name}.py").is_file()  # else the module itself
        ]
    return [name for name in bound if name in modules]


def test_nothing_shadows_a_module() -> None:
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}
    assert {str(path.relative_to(ROOT)): names for path, tree in trees.items() if (names := shadows(path, tree))} == {}


@pytest.mark.parametrize(
    ("name", "code", "found"),
    [
        ("__init__", "from nas.export.onnx import onnx", ["onnx"]),
        ("__init__", "from nas.export import onnx", []),
        ("__init__", "from nas.export.onnx import save", []),
        ("onnx", "def onnx(): pass", ["onnx"]),
        ("onnx", "def save(): pass\nclass program: pass", []),
    ],
)
def test_shadows_are_seen(name: str, code: str, found: list[str]) -> None:
    assert shadows(ROOT / f"nas/export/{name}.py", ast.parse(code)) == found


def test_what_the_tools_import_exists() -> None:
    """No type checker reads them."""
    missing = []
    for path in sorted((ROOT / "tools").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES:
                module = importlib.import_module(f"{node.module}")
                inside = {name for _, name, _ in pkgutil.iter_modules(getattr(module, "__path__", []))}
                missing += [
                    f"{path.relative_to(ROOT)}: {node.module}.{alias.name}"
                    for alias in node.names
                    if alias.name not in inside and not hasattr(module, alias.name)
                ]
    assert missing == []


def test_versions_agree() -> None:
    version = PROJECT["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == version
    assert f"\n## {version} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_entry_points_name_modules_of_the_packages() -> None:
    groups = [PROJECT["scripts"], *PROJECT["entry-points"].values()]
    names = [target.split(":")[0].replace(".", "/") for group in groups for target in group.values()]
    files = {path.relative_to(ROOT).as_posix() for path in MODULES}
    assert [name for name in names if not {f"{name}.py", f"{name}/__init__.py"} & files] == []


def test_the_workflow_and_the_hooks_call_what_make_calls() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    workflow = yaml.safe_load((ROOT / ".github/workflows/checks.yml").read_text(encoding="utf-8"))
    steps = workflow["jobs"]["checks"]["steps"]
    targets = [words[1] for step in steps if (words := step.get("run", "").split())]
    assert targets == ["check", "test"]
    assert [target for target in targets if not re.search(rf"^{target}: ", makefile, re.MULTILINE)] == []
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    called = set(re.findall(r"\$\(BIN\)/([\w-]+)", makefile.partition("\ncheck:")[2].partition("\n\n")[0]))
    assert {Path(hook["entry"].split()[0]).name for hook in hooks} == called


def test_constraints_pin_every_dependency() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.]+", pin)] == []
    wanted = [*PROJECT["dependencies"], *(d for e in PROJECT["optional-dependencies"].values() for d in e)]
    names = {distribution(requirement) for requirement in wanted} - {PROJECT["name"]}
    assert names - {distribution(pin) for pin in pins} == set()


def test_constraints_pin_what_dependencies_need() -> None:
    """Of torch alone they do not: on some machines it needs libraries of its graphics processors."""
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    open_, found = [(PROJECT["name"], "dev"), (PROJECT["name"], "demo")], set[tuple[str, str]]()
    while open_:
        found.add(now := open_.pop())
        name, extra = now
        for text in (metadata.requires(name) or []) if name != "torch" else []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                each = distribution(requirement.name)
                open_ += [(each, e) for e in ("", *requirement.extras) if (each, e) not in found]
    assert {name for name, _ in found} - {PROJECT["name"]} - {distribution(pin) for pin in pins} == set()


def test_each_constraint_but_torch_has_hashes() -> None:
    """`make hashes` updates them."""
    lines = (ROOT / "requirements-hashed.txt").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()[1:]
    hashed = [line.split() for line in lines]
    assert [name for name, *hashes in hashed if not hashes] == []
    assert [h for _, *hashes in hashed for h in hashes if not re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", h)] == []
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [pin.split("==") for pin in constraints if not pin.startswith(("#", "torch=="))]
    assert {f"{distribution(name)}=={version}" for name, version in pins} == {name for name, *_ in hashed}


def distribution(requirement: str) -> str:
    """The normalized name that a requirement begins with."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement)[0]).lower()
