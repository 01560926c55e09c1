"""The README's code and commands, run in order in one folder as a newcomer would, only with fewer steps."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
SMALL = {
    "search": [
        "options.channels=4",
        "options.layers=2",
        "task.train.limit=80",
        "task.train.size=[48, 84]",
        "task.test.limit=5",
        "task.crop=32",
        "task.batch=1",
        "search.steps=4",
        "search.epochs=1",
    ],
    "retrain": [
        "retrain.options.channels=4",
        "task.train.limit=80",
        "task.train.size=[48, 84]",
        "task.test.limit=5",
        "task.crop=32",
        "task.batch=1",
        "retrain.stages.backbone.steps=2",
        "retrain.stages.averaging.steps=1",
        "retrain.stages.joint.steps=1",
    ],
}


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    return [line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]


def small(command: str) -> list[str]:
    """The command's words, with overrides that make it quick."""
    words = shlex.split(command)
    for flag in ("--out", "--import", "--config", "--model"):
        if flag in words:  # positional overrides go before the first flag
            break
    extra = SMALL.get(words[1], [])
    given = {word.split("=")[0] for word in words if "=" in word}
    first = next((i for i, word in enumerate(words) if word.startswith("--")), len(words))
    return words[:first] + [word for word in extra if word.split("=")[0] not in given] + words[first:]


def test_the_first_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    namespace: dict[str, object] = {}
    exec(compile(blocks("python")[0], "README.md", "exec"), namespace)  # noqa: S102 - the README's own code
    assert namespace["genotype"].choices == {"operation": "conv"}  # type: ignore[attr-defined]


def test_the_readme_shows_each_use_of_the_toolkit() -> None:
    used = {shlex.split(command)[1] for command in commands()}
    assert {"search", "show", "draw", "retrain", "evaluate", "predict"} <= used
    assert "make demo" in blocks("sh")[0]
    assert "make test" in blocks("sh")[0]


def test_the_commands_run_in_order(tmp_path: Path) -> None:
    from tmics_space.data.texture import moving_texture
    from tmics_space.data.writer import write_frames

    for kind in ("yaml", "python"):
        for block in blocks(kind):
            if name := re.match(r"# (\S+\.(?:yaml|py))\n", block):
                (tmp_path / name[1]).write_text(block, encoding="utf-8")
    with write_frames(tmp_path / "rainy.mp4") as write:
        for frame in moving_texture(5, 48, 64):
            write(frame)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    nas = Path(sys.executable).with_name("nas")
    assert len(commands()) >= 10
    for command in commands():
        run = subprocess.run(
            [nas, *small(command)[1:]], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, f"{command}\n{run.stdout}\n{run.stderr}"
    for made in (
        "runs/search/genotype.yaml",
        "genotype.svg",
        "heavy.svg",
        "runs/network/weights.safetensors",
        "clean.mp4",
    ):
        assert (tmp_path / made).stat().st_size > 0, made
