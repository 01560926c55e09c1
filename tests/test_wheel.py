"""The wheel, installed and used from elsewhere: it carries the genotypes, the configurations and all they need."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="hatchling, which builds, is missing"),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT))
    (file,) = folder.glob("*.whl")
    return file


def run(*arguments: str, cwd: Path | None = None, **environment: str) -> str:
    """What Python prints with these arguments."""
    command = [sys.executable, *arguments]
    environment = {**os.environ, **environment}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {
        "nas",
        "search_spaces",
        "tmics_space",
        wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info",
    }
    assert {"nas/genotypes/tmics-light.yaml", "tmics_space/configs/demo.yaml", "nas/py.typed"} <= set(names)
    models = [path for path in (ROOT / "tmics_space" / "models").rglob("*") if path.is_file()]
    assert {p.relative_to(ROOT).as_posix() for p in models if p.suffix != ".pyc"} <= set(names)
    assert {"nas/report/templates/run.html", "nas/report/templates/report.js"} <= set(names)


def test_commands_work_from_an_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    installed, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    run("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(installed), str(wheel))
    assert (installed / "bin" / "nas").is_file()
    commands = [
        ["--help"],
        ["spaces"],
        ["ops", "darts"],
        ["show", "tmics-light"],
        ["draw", "tmics-heavy"],
        ["draw", "tmics-heavy", "--out", "heavy.svg"],
        ["config"],
        ["config", "demo"],
    ]
    code = "import sys\nimport nas\nfrom nas.cli import main\nprint(nas.__file__)\n"
    code += "".join(f"sys.argv = ['nas', *{command!r}]\nmain()\n" for command in commands)
    out = run("-c", code, cwd=elsewhere, PYTHONPATH=str(installed))
    assert out.startswith(str(installed))
    for part in (
        "Usage: nas COMMAND",
        "tmics_space.space:tmics (entry point)",
        "sep_conv_3x3",
        "parameters: 5,530,831",
        "cell/1: ",
        "\ndemo\n",
        "space: tmics\n",
    ):
        assert part in out
    assert (elsewhere / "heavy.svg").read_text().startswith("<svg")
