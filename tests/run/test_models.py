"""Models: made of runs, found by name, and refused with one line if anything about them is wrong."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch

import nas
import shipping
import toy
from nas.errors import ConfigError, InvalidFileError, MissingFileError, NASError
from nas.registry import kind
from nas.run.card import read_card
from nas.run.folder import Run
from nas.run.models import default_model, installed_models, model_folder, pack, recorded_scores
from nas.run.retraining import load_network
from runs import run_retrain
from tmics_space.data import moving_texture, read_frames, write_frames


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shipping.tiny_run(tmp_path_factory.mktemp("models") / "run")


@pytest.fixture(scope="module")
def packed(run: Path) -> Path:
    return pack(run, run.parent / "tiny", shipping.card(run.parent)).folder


@pytest.fixture
def model(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a model, to damage, known as `tiny`."""
    monkeypatch.setattr(kind("model"), "_registered", {})
    monkeypatch.setattr(kind("model"), "_origins", {})
    folder = shutil.copytree(packed, tmp_path / "tiny")
    nas.register("model", "tiny")(lambda: folder)
    return folder


def test_a_model_is_what_a_run_made(run: Path, packed: Path) -> None:
    assert sorted(path.name for path in packed.iterdir()) == [
        "card.md", "config.yaml", "genotype.yaml", "weights.safetensors"
    ]  # fmt: skip
    card, network = read_card(packed), load_network(run)
    assert (card.task, card.summary, card.license) == ("derain", "Removes nothing yet.", "CC0-1.0")
    assert card.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert card.text == shipping.CARD.split("---\n", 2)[2]
    for name, value in load_network(packed).state_dict().items():
        assert torch.equal(value, network.state_dict()[name])


def test_scores_are_those_of_the_last_evaluation(tmp_path: Path) -> None:
    config = toy.config("retrain.stages.backbone.steps=1", "retrain.stages.averaging.steps=1", "retrain.epochs=1")
    run_retrain(tmp_path / "run", config)
    with Run.open(tmp_path / "run") as opened:
        for score in (1.5, 2.5):
            opened.record("evaluate", None, score=score, statement="how")
    made = pack(tmp_path / "run", tmp_path / "model", shipping.card(tmp_path))
    assert made.card.scores == recorded_scores(tmp_path / "run") == recorded_scores(made.folder) == {"score": 2.5}


@pytest.mark.usefixtures("model")
def test_a_name_works_like_a_run(run: Path, tmp_path: Path) -> None:
    window = torch.rand(1, 5, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(nas.load("tiny")(window).output, load_network(run)(window).output)
    with write_frames(tmp_path / "in") as write:
        for frame in moving_texture(3, 18, 20):
            write(frame)
    for name, sink in ((run, "by-run"), ("tiny", "by-name")):
        assert nas.predict(name, tmp_path / "in", tmp_path / sink)["frames"] == 3
    assert torch.equal(read_frames(tmp_path / "by-run"), read_frames(tmp_path / "by-name"))


@pytest.mark.usefixtures("model")
def test_models_are_listed_and_a_broken_one_is_a_warning(model: Path) -> None:
    (found,) = (each for each in installed_models() if each.name == "tiny")
    assert (found.name, found.folder, found.size) == ("tiny", model, (model / "weights.safetensors").stat().st_size)
    nas.register("model", "gone")(lambda: model / "gone")
    with pytest.warns(UserWarning, match=r"left out model 'gone'.*missing"):
        assert [each.name for each in installed_models()] == ["tiny", "tmics-compact"]


def test_a_folder_comes_before_a_name(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model)
    assert model_folder("tiny") == model
    Path("tiny").mkdir()
    assert model_folder("tiny") == Path("tiny")
    assert model_folder("other") == Path("other")


def test_the_default_is_that_of_the_only_task_with_one(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = kind("task")
    monkeypatch.setattr(tasks, "points", list)
    monkeypatch.setattr(tasks, "_registered", {})
    for number, default in enumerate(("tiny", "", "unknown")):
        nas.register("task", f"task{number}")(type(f"Task{number}", (toy.ToyTask,), {"default_model": default}))
    assert default_model() == "tiny"
    nas.register("model", "other")(lambda: model)
    nas.register("task", "task3")(type("Task3", (toy.ToyTask,), {"default_model": "other"}))
    with pytest.raises(ConfigError, match=r"'tiny' of task 'task0', 'other' of task 'task3'. Give --model"):
        default_model()
    monkeypatch.setattr(kind("model"), "_registered", {})
    with pytest.raises(ConfigError, match="no default model"):
        default_model()


def test_deraining_has_a_default_model() -> None:
    assert kind("task").find("derain").default_model == "tmics-compact"


# --- what is wrong with a model ---


def edit(path: Path, pattern: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.search(pattern, text)
    path.write_text(re.sub(pattern, new, text, count=1), encoding="utf-8")


def flip(path: Path) -> None:
    """Change one bit of the last weight, which leaves a valid file."""
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(("name", "near"), [("tyni", r" \(did you mean 'tiny'\?\)"), ("runs/net", "")])
def test_a_model_that_does_not_exist(name: str, near: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"^{name}: no such folder and no model of this name{near}; "):
        nas.load(name)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("damage", [flip, cut, lambda path: path.write_bytes(b"")])
def test_damaged_weights(model: Path, damage: object) -> None:
    assert callable(damage)
    damage(model / "weights.safetensors")
    with pytest.raises(InvalidFileError, match=r"weights\.safetensors: damaged: its SHA-256 must be [0-9a-f]{12}"):
        nas.load("tiny")


@pytest.mark.parametrize(
    ("file", "pattern", "new", "message"),
    [
        ("card.md", "schema: 1", "schema: 2", r"card\.md: schema must be 1, got 2\. Update the package"),
        ("card.md", "schema: 1\n", "", r"card\.md: schema must be 1, got None"),
        ("card.md", "license", "licence", r"card\.md: .*unknown field 'licence' \(did you mean 'license'\?\)"),
        ("card.md", "---\n", "", r"card\.md: must begin with a mapping"),
        ("card.md", "summary: .*", "summary: ''", r"card\.md: summary: "),
        ("genotype.yaml", "schema: 1", "schema: 7", r"genotype\.yaml: has schema version 7"),
        ("genotype.yaml", "channels: 2", "channels: 3", r"safetensors: weights of another network.*size mismatch"),
    ],
)  # fmt: skip
def test_files_that_do_not_fit(model: Path, file: str, pattern: str, new: str, message: str) -> None:
    edit(model / file, pattern, new)
    with pytest.raises(InvalidFileError, match=message):
        nas.load("tiny")


def test_weights_of_another_network(model: Path, tmp_path: Path) -> None:
    """They are whole, and the card is theirs."""
    other = pack(shipping.tiny_run(tmp_path / "run", channels=3), tmp_path / "other", shipping.card(tmp_path))
    for name in ("weights.safetensors", "card.md"):
        shutil.copy(other.folder / name, model / name)
    with pytest.raises(InvalidFileError, match=r"weights\.safetensors: weights of another network"):
        nas.load("tiny")


def test_a_model_that_does_not_fit_its_task(model: Path, tmp_path: Path) -> None:
    run_retrain(tmp_path / "toy", toy.config("retrain.stages.backbone.steps=1", "retrain.epochs=1"))
    for name in ("genotype.yaml", "weights.safetensors"):
        shutil.copy(tmp_path / "toy" / name, model / name)
    (model / "card.md").unlink()
    with write_frames(tmp_path / "in") as write:
        write(moving_texture(1, 18, 20)[0])
    with pytest.raises(ConfigError, match=r"task 'derain': the network must accept inputs of shape \(1, 5, 3"):
        nas.predict("tiny", tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_name_that_is_no_model(model: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"tinny: no such folder and no model .*did you mean 'tiny'"):
        nas.predict("tinny", model, tmp_path / "out")


def test_packing_refuses(run: Path, packed: Path, tmp_path: Path) -> None:
    def refused(message: str, card: Path, folder: Path = tmp_path / "new", source: Path = run) -> None:
        with pytest.raises(NASError, match=message):
            pack(source, folder, card)

    good = shipping.card(tmp_path)
    before = {path: path.read_bytes() for path in packed.iterdir()}
    refused("tiny: must be a new or an empty folder", good, packed)
    assert {path: path.read_bytes() for path in packed.iterdir()} == before
    refused("no retrained network", good, source=tmp_path)
    for section in ("Data", "Recipe", "Scores", "Limits"):
        text = shipping.CARD.replace(f"## {section}", "")
        refused(f"must have the heading '{section}'", shipping.card(tmp_path, text))
    refused("missing the required field 'license'", shipping.card(tmp_path, shipping.CARD.replace("license", "#")))
    refused("must begin with a mapping", shipping.card(tmp_path, "# Only text"))
    assert not (tmp_path / "new").exists()
