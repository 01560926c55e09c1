"""The README's code and commands, run in order in one folder as a newcomer would, only with fewer steps."""

from __future__ import annotations

import functools
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import nas
import nas.cli
import nas.registry
import nas.run.config
import processes

README = Path(__file__).parent.parent / "README.md"
DATA = "task.train.limit=80 'task.train.size=[48, 84]' task.test.limit=5 task.crop=32 task.batch=1"
STAGES = " ".join(f"retrain.stages.{stage}.steps=1" for stage in ("backbone", "averaging", "joint"))
SMALL = {
    "search": shlex.split(f"options.channels=4 options.layers=2 search.steps=4 search.epochs=1 {DATA}"),
    "retrain": shlex.split(f"retrain.options.channels=4 {STAGES} {DATA}"),
}


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    return [line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]


def small(command: str) -> list[str]:
    """The command's words, with overrides that make it quick."""
    words = shlex.split(command)
    slow = words[1] != "search" or words[2] == "demo"  # other searches are quick as they stand
    extra = SMALL.get(words[1], []) if slow else []
    given = {word.split("=")[0] for word in words if "=" in word}
    first = next((i for i, word in enumerate(words) if word.startswith("--")), len(words))
    return words[:first] + [word for word in extra if word.split("=")[0] not in given] + words[first:]


QUICK = {
    '{"search.steps": 200}': '{"search.steps": 2, "search.epochs": 1, "retrain.stages.all.steps": 2}',
    "channels=16": "channels=4, cells=2, nodes=1",
    "torch.randn(64": "torch.randn(16",
    "randint(10, (64,))": "randint(10, (16,))",
}
"""What makes the programs quick."""
FIRST = """\
import nas
config = nas.load_config("digits", {"search.steps": 200})        # a shipped name, a path, or a mapping
found = nas.search(config, out="runs/search")                    # resume=True, observers=[...]; a progress bar in \
terminals and notebooks
found.genotype.draw("cell.svg"); found.genotype.save("mine.yaml"); found.report()
network = nas.retrain(found.genotype, config, out="runs/network").network
network = nas.load("runs/network")                               # any time later
"""
SECOND = """\
net = nas.Supernet("darts", channels=16)                         # a name, or a space of one's own
weights, arch = torch.optim.SGD(net.weights(), 0.025, momentum=0.9), torch.optim.Adam(net.logits(), 3e-4)
levels = nas.Levels(net, steps=len(loader_a),
    lower=nas.level(weights, loss=train_loss),
    upper=nas.level(arch, loss=val_loss, hypergradient={"lower": "unrolled"}))
for train, val in zip(loader_a, loader_b):                       # any DataLoader
    levels.step(lower=train, upper=val)                          # a list of batches for several virtual steps
genotype = net.derive(); network = genotype.build()
"""


@pytest.fixture
def namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the README's programs define, run in order in one folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(nas.registry.kind("search space"), "_registered", {})
    found: dict[str, Any] = {"__name__": "readme"}
    for block in blocks("python"):
        if not block.startswith("# "):  # else it is a file
            code = functools.reduce(lambda text, item: text.replace(*item), QUICK.items(), block)
            exec(compile(code, "README.md", "exec", dont_inherit=True), found)  # noqa: S102 - the README's own code
    return found


def test_the_programs_run_as_they_stand(namespace: dict[str, Any]) -> None:
    assert blocks("python")[0] == FIRST
    assert SECOND in blocks("python")
    assert all(any(part in block for block in blocks("python")) for part in QUICK)
    for made in ("cell.svg", "mine.yaml", "runs/search/report.html", "runs/network/weights.safetensors"):
        assert Path(made).stat().st_size > 0, made
    assert namespace["supernet"].derive().choices == {"operation": "conv"}
    assert namespace["levels"].done == 2
    assert namespace["genotype"].space == "darts"


def test_python_and_the_command_line_do_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = re.findall(r"^\| \w[^|]* \| `([^`]+)` \| `([^`]+)` \|$", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) >= 7
    changes = {"search.steps": 2, "search.epochs": 1, "retrain.stages.all.steps": 2, "retrain.epochs": 1}
    for folder in ("python", "commands"):
        (tmp_path / folder).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / folder / "digit.png")
    monkeypatch.chdir(tmp_path / "python")
    namespace: dict[str, Any] = {"nas": nas, "config": nas.load_config("digits", changes)}
    for program, _ in rows:
        exec(compile(program, "README.md", "exec"), namespace)  # noqa: S102 - the README's own code
    monkeypatch.chdir(tmp_path / "commands")
    monkeypatch.setattr(nas.run.config, "load_config", functools.partial(_changed, nas.run.config.load_config, changes))
    for _, command in rows:
        monkeypatch.setattr(sys, "argv", shlex.split(command))
        nas.cli.main()
    for made in ("runs/a/genotype.yaml", "runs/b/weights.safetensors", "cell.svg", "classes.csv", "network.py"):
        found = [(tmp_path / folder / made).read_bytes() for folder in ("python", "commands")]
        assert found[0] == found[1], made


def _changed(load: Callable[..., nas.Config], changes: dict[str, Any], source: Any, overrides: Any = ()) -> nas.Config:
    return load(source, [*overrides, *(f"{key}={value}" for key, value in changes.items())])


def test_the_readme_shows_each_use_of_the_toolkit() -> None:
    used = {shlex.split(command)[1] for command in commands()}
    assert {"search", "show", "draw", "retrain", "predict", "export"} <= used
    assert "pip install '.[video]'" in blocks("sh")[0]
    assert "make demo" in blocks("sh")[1]
    assert "make test" in blocks("sh")[1]


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", README.read_text(encoding="utf-8")):
        assert (README.parent / link).exists(), link


def test_the_commands_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tmics_space.data.texture import moving_texture
    from tmics_space.data.writer import write_frames

    for language in ("yaml", "python"):
        for block in blocks(language):
            if name := re.match(r"# (\S+\.(?:yaml|py))\n", block):
                (tmp_path / name[1]).write_text(block, encoding="utf-8")
    with write_frames(tmp_path / "rainy.mp4") as write:
        for frame in moving_texture(5, 48, 64):
            write(frame)
    monkeypatch.chdir(tmp_path)
    errors = tmp_path / "errors"
    assert len(commands()) >= 9
    assert commands()[0] == "nas predict rainy.mp4 clean.mp4", "the first command derains a video"
    for command in commands():
        if command.startswith("nas predict"):
            (tmp_path / "clean.mp4").unlink(missing_ok=True)
        process = processes.start(*small(command)[1:], errors=errors)
        assert processes.finish(process) == 0, f"{command}\n{errors.read_text()}"
    for made in ("runs/derain/genotype.yaml", "heavy.svg", "runs/derainer/weights.safetensors", "clean.mp4"):
        assert (tmp_path / made).stat().st_size > 0, made
    shown = README.parent / "docs" / "figures" / "darts-v2.svg"
    assert (tmp_path / "darts-v2.svg").read_bytes() == shown.read_bytes()
