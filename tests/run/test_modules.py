"""A run folder names the modules that its names come from, and imports none of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import processes
import toy
from nas.run.folder import read_versions

OPERATIONS = """
import nas, toy
@nas.register("observer", "my_observer")
class Mine(nas.Observer):
    pass
"""
SHORT = ["search.steps=2", "search.epochs=1"]


def nas(folder: Path, *arguments: str) -> tuple[int | None, str]:
    """The exit code of a command in a process of its own, and what it prints as errors."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        process = processes.start(*arguments, errors=folder / "errors")
    return processes.finish(process), (folder / "errors").read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Modules of the user's, and a search that one of them was imported for, and another one by `--import`."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "toy.py").symlink_to(Path(toy.__file__))
    (folder / "my_parts.py").write_text(OPERATIONS)
    (folder / "my_values.py").write_text("")
    program = [sys.executable, "-c", "import my_parts; from nas.cli import main; main()", "search", toy.CONFIG, *SHORT]
    command = [*program, "search.observers=[my_observer]", "--import", "my_values", "--out", "run"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_folder_names_the_modules(folder: Path) -> None:
    modules = read_versions(folder / "run").modules
    assert modules[0] == "my_values"
    assert "my_parts" in modules
    assert not [name for name in modules if name.startswith(("nas.", "search_spaces.", "tmics_space."))]


@pytest.mark.parametrize(
    "command",
    [
        ["derive", "run"],
        ["retrain", "run", "--out", "net"],
        ["search", "--from", "run", "--out", "next"],
        ["search", "run/config.yaml", "--resume", "--out=run"],
    ],
    ids=lambda command: command[0],
)
def test_an_unknown_name_is_an_error_that_says_what_to_import(command: list[str], folder: Path) -> None:
    code, errors = nas(folder, *command)
    assert code == 2
    (line,) = errors.splitlines()
    assert "'toy'" in line
    assert "run was started with --import my_values" in line
    assert line.count("--import my_parts") == 1


def test_with_the_modules_the_same_command_works(folder: Path) -> None:
    code, errors = nas(folder, "derive", "run", "--import", "my_parts", "--import", "my_values")
    assert code == 0, errors


def test_a_name_that_no_module_of_the_run_has_gets_no_hint(folder: Path) -> None:
    imports = ["--import", "my_parts", "--import", "my_values"]
    _, errors = nas(folder, "search", "--from", "run", "search.relaxation=nope", "--out", "next", *imports)
    assert "'nope'" in errors
    assert "was started with" not in errors
