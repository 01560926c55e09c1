"""The command `nas` itself: help, mistakes, loading modules, interruptions and pipes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App

import processes
import toy
from nas import __version__
from nas.cli import inspecting
from nas.cli.commands import app
from nas.registry import kind

NAS = [sys.executable, "-c", "from nas.cli import main; main()"]
COMMANDS = {
    "spaces": [],
    "benchmark": ["ARGS", "--out", "runs/benchmark"],
    "correlate": ["NAME", "--sample", "--out", "synflow"],
    "score": ["GENOTYPE", "folders of searches"],
    "ops": ["NAME", "YAML"],
    "show": ["TARGET", "OPTIONS", "name=value", "--input", "--depth", "--runs"],
    "config": ["NAME"],
    "plan": ["CONFIG", "OVERRIDES", "--fit", "--tries", "memory"],
    "search": ["CONFIG", "YAML", "OVERRIDES", "search.steps=500", "--out", "--resume", "--quiet"],
    "derive": ["RUN", "folder", "--policy", "--budget", "params=50k", "--compare", "--out"],
    "draw": ["TARGET", "OPTIONS", "--out", ".svg, .dot, .mmd", "Graphviz", "--cells", "--dark"],
    "retrain": ["GENOTYPE", "folder", "OVERRIDES", "--out", "--config", "--inherit", "--resume"],
    "evaluate": ["RUN", "folder", "OPTIONS", "--outputs", "--truth", "--rainy", "--model", "--out"],
    "check": ["NAME", "name=value", "--kind", "--input", "--split", "--tolerance"],
    "check-hypergradient": ["CONFIG", "OVERRIDES", "--method", "--steps", "--after", "--tolerance"],
    "latency": ["CONFIG", "OVERRIDES", "--repeats"],
    "tune": ["CONFIG", "OVERRIDES", "key.path=distribution", "--trials", "--storage", "journal:FILE", "--genotype"],
    "genotype lint": ["TARGETS", "exits with 2"],
    "genotype diff": ["BEFORE", "AFTER", "--out"],
    "genotype canon": ["TARGETS", "--cells", "NAS-Bench-201"],
    "genotype import": ["SOURCE", "OPTIONS", "--format", "nas-bench-201", "--name", "--out"],
    "genotype export": ["TARGET", "--format", "nas-bench-201", "--out"],
    "genotype upgrade": ["TARGETS", "schema"],
    "models": ["NAME", "pack"],
    "models pack": ["RUN", "FOLDER", "--card", "Data, Recipe, Scores"],
    "report": ["RUN", "OTHERS", "--out", "--search"],
    "doctor": ["RUN", "folder", "--repair", "exit code"],
    "predict": ["SOURCE", "SINK", "--model", "--tile", "pixels"],
    "export": ["RUN", "folder", "--format", "--out", "network.py"],
}


def command_of(name: str) -> App:
    found = app
    for word in name.split():
        found = found[word]
    return found


def plain(text: str) -> str:
    """Without the frames of panels and line breaks."""
    return re.sub(r"[\s│╭╮╰╯─]+", " ", text)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["search", "--help"], ["serch"], ["search"]])
def test_help_and_mistakes_need_no_torch(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom nas.cli import main\ntry:\n    main()\nfinally:\n"
        "    print(*{'torch', 'numpy', 'msgspec'} & {*sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == ""
    assert done.returncode == (0 if arguments[-1].startswith("--") else 2)


def test_help_teaches_the_way(nas: Callable[..., Any]) -> None:
    for result in (nas(), nas("--help")):
        assert result.code == 0
        text = plain(result.out)
        for command in COMMANDS:
            assert f" {command.split()[0]} " in text
        for part in ("nas config NAME > my.yaml", "nas search my.yaml --out runs/search", "--import MODULE"):
            assert part in text


def test_every_command_is_known() -> None:
    known = [name for name in app if not name.startswith("-")]
    inner = {f"{name} {sub}" for name in known for sub in app[name] if not sub.startswith("-")}
    assert {*known, *inner} - {"genotype"} == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_explains_its_arguments(command: str, nas: Callable[..., Any]) -> None:
    result = nas(*command.split(), "--help")
    assert result.code == 0
    text = plain(result.out)
    assert f"Usage: nas {command}" in text
    for part in COMMANDS[command]:
        assert part in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_parameter_has_a_help(command: str) -> None:
    arguments = command_of(command).assemble_argument_collection(parse_docstring=True)
    assert [argument.name for argument in arguments if not argument.parameter.help] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serch"], r'Unknown command "serch"\. Did you mean "search"\?'),
        (["search", "a.yaml", "--out", "b", "--resum"], r"Unknown option: --resum\. Did you mean --resume\?"),
        (["search", "a.yaml"], "nas search: --out is missing: Folder of the run"),
        (["predict", "a", "b", "--model", "c", "--tile", "big"], r'--tile: unable to convert "big" into int'),
        (["derive"], "nas derive: RUN is missing. See `nas derive --help`."),
    ],
)
def test_mistakes_in_the_arguments(arguments: list[str], message: str, refused: Callable[..., str]) -> None:
    assert re.search(message, refused(*arguments))


LONG = "x" * 300


@pytest.mark.parametrize(
    "arguments",
    [("show", LONG), ("config", LONG), ("evaluate", LONG), ("doctor", LONG), ("search", "digits", "--out", LONG)],
)
def test_names_that_no_file_can_have(arguments: tuple[str, ...], refused: Callable[..., str]) -> None:
    message = refused(*arguments)
    assert LONG[:60] in message
    assert len(message) < 2000


def test_other_errors_keep_their_traceback(nas: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(described: object) -> str:
        raise ZeroDivisionError

    monkeypatch.setattr(inspecting, "_first_line", broken)
    with pytest.raises(ZeroDivisionError):
        nas("spaces")


# --import

MODULE = """
from torch import nn
from nas import search_space

@search_space("{name}")
def space(choose, /):
    "A space of somebody else."
    return choose("only", {{"a": nn.Identity, "b": nn.Tanh}})
"""


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("early", ["--import", "MODULE", "spaces"]),
        ("late", ["spaces", "--import", "MODULE"]),
        ("joined", ["spaces", "--import=MODULE"]),
    ],
)
def test_modules_are_imported_wherever_they_are_named(
    name: str, form: list[str], nas: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where a user keeps the module
    monkeypatch.setattr(kind("search space"), "_registered", {})
    module = f"somebodys_{name}"
    (tmp_path / f"{module}.py").write_text(MODULE.format(name=name))
    result = nas(*(argument.replace("MODULE", module) for argument in form))
    assert result.code == 0
    assert re.search(rf"^{name} +1 +A space of somebody else\. +{module}:space$", result.out, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["spaces", "--import", "not_there"], "--import not_there: No module named 'not_there'"),
        (["spaces", "--import"], "--import must be the name of a module, got ''"),
        (["--import", "--help"], "--import must be the name of a module, got '--help'"),
        (["--import", "./space.py", "spaces"], "--import must be the name of a module, got './space.py'"),
        (["--import", "half", "spaces"], "--import half: No module named 'missing_half'"),
    ],
)
def test_modules_that_cannot_be_imported(
    arguments: list[str], message: str, refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "half.py").write_text("import missing_half\n")
    assert refused(*arguments) == f"nas: {message}"


def test_a_bug_in_a_module_keeps_its_traceback(
    nas: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "buggy.py").write_text("1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        nas("spaces", "--import", "buggy")


# Interruptions and pipes


def test_an_interrupted_run_says_how_to_go_on(tmp_path: Path) -> None:
    arguments = ["search", str(toy.CONFIG), "task.pause=0.05", "--import", "toy", "--out", str(tmp_path / "run")]
    process = processes.start(*arguments, errors=tmp_path / "errors")
    processes.wait_for(process, tmp_path / "run" / "metrics.jsonl", 1000)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    assert processes.finish(process) == 130
    assert (tmp_path / "errors").read_text() == "nas: interrupted; repeat the command with --resume to continue\n"
    assert processes.finish(processes.start(*arguments, "--resume")) == 0
    assert (tmp_path / "run" / "genotype.yaml").exists()


def test_other_interrupted_commands_offer_no_resume(nas: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(described: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(inspecting, "_first_line", interrupted)
    assert nas("spaces") == (130, "", "nas: interrupted\n")


def test_a_reader_that_leaves_is_no_error() -> None:
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}  # so that all is written at the end, as usual
    command = subprocess.Popen(
        [*NAS, "config", "demo"], env=buffered, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert command.stdout is not None
    assert command.stderr is not None
    command.stdout.close()
    assert command.stderr.read() == ""
    assert command.wait() == 1
    command.stderr.close()


def test_the_package_is_the_command() -> None:
    """Where the folder of installed commands is not on the path."""
    found = subprocess.run([sys.executable, "-m", "nas", "--version"], capture_output=True, text=True)
    assert (found.returncode, found.stdout, found.stderr) == (0, f"{__version__}\n", "")
    found = subprocess.run([sys.executable, "-m", "nas", "serch"], capture_output=True, text=True)
    assert found.returncode == 2
    assert re.match(r'nas: .*"search"', found.stderr)
