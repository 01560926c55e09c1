"""Configurations: files, shipped names and overrides, and what their mistakes say."""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import nn

import nas.config
import nas.space
import nas.task
from nas.choose import Chooser
from nas.config import Config, find_config, load_config, parse_config, shipped_configs
from nas.errors import ConfigError, InvalidFileError, NASError, UnknownNameError
from nas.files import parse_yaml
from nas.levels import SGD, Adam
from nas.operations import OperationSet
from nas.primitives import DARTS
from nas.space import search_space

TEXT = """\
space: test-config
options: {channels: 4}
task: {name: test-config, length: 5}
search:
  steps: 100
  levels:
    lower: {parameters: ["network.*"], loss: mse, split: train, optimizer: {name: sgd, lr: 0.1, momentum: 0.9}}
    upper:
      parameters: ["arch.*"]
      loss: mse
      split: val
      optimizer: {name: adam, lr: 3e-4, betas: [0.5, 0.999]}
      hypergradient: {lower: {name: unrolled, steps: 2}}
      warmup: 0.1
retrain:
  stages:
    all: {steps: 10, level: {parameters: ["*"], loss: mse, split: train, optimizer: {name: sgd, lr: 1}}}
"""


@search_space("test-config")
def tiny(choose: Chooser, /, *, channels: int = 2) -> nn.Module:
    """One decision."""
    return choose("only", {"linear": lambda: nn.Linear(channels, channels), "none": nn.Identity})


@search_space("test-operations")
def chosen(choose: Chooser, /, *, operations: OperationSet = DARTS) -> nn.Module:
    """One decision among operations."""
    return choose("only", operations.bind(2))


class Fields(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    length: int = 3


class Lines:
    Config = Fields

    def __init__(self, config: Fields, *, seed: int) -> None:
        self.config = config
        self.seed = seed


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(nas.task._tasks, "test-config", Lines)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "demo.yaml"
    path.write_text(TEXT)
    return path


def parse(*overrides: str) -> Config:
    return parse_config(parse_yaml(TEXT, "text"), overrides)


# --- files ---


def test_a_file_becomes_typed_data(path: Path) -> None:
    config = load_config(path)
    assert list(config.search.levels) == ["lower", "upper"]
    assert config.search.levels["lower"].optimizer == SGD(lr=0.1, momentum=0.9)
    assert config.search.levels["upper"].optimizer == Adam(lr=3e-4, betas=(0.5, 0.999))
    assert config.search.levels["upper"].hypergradient == {"lower": {"name": "unrolled", "steps": 2}}
    assert (config.seed, config.search.relaxation, config.search.epochs) == (0, "softmax", 10)


@pytest.mark.parametrize("steps", [1, 2, 5, 19, 20, 60, 12345])
@pytest.mark.parametrize("epochs", [1, 3, 7, 10, 60])
def test_there_are_as_many_epochs_as_asked_and_the_last_ends_with_the_last_step(steps: int, epochs: int) -> None:
    stages = f"{{a: {{steps: {steps}, level: LEVEL}}}}".replace("LEVEL", "{parameters: ['*'], loss: l1, split: all, "
                                                                "optimizer: {name: sgd, lr: 1}}")  # fmt: skip
    config = parse(f"search.steps={steps}", f"search.epochs={epochs}", f"retrain.stages={stages}",
                   f"retrain.epochs={epochs}")  # fmt: skip
    for section in (config.search, config.retrain):
        ends = [step for step in range(1, steps + 1) if section.ends_epoch(step)]
        assert (len(ends), ends[-1]) == (min(epochs, steps), steps)
        lengths = {b - a for a, b in itertools.pairwise([0, *ends])}
        assert max(lengths) - min(lengths) <= 1


def test_the_dump_has_every_default_and_reads_back(tmp_path: Path, path: Path) -> None:
    config = load_config(path, ["search.steps=7"])
    text = config.dump()
    again = tmp_path / "again.yaml"
    again.write_text(text)
    assert load_config(again) == config
    assert "relaxation: softmax" in text
    assert "inner_steps: 1" in text


def test_the_task_is_built_with_its_fields_and_the_seed(path: Path) -> None:
    built: Any = load_config(path, ["seed=9"]).build_task()
    assert (built.config.length, built.seed) == (5, 9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "demo.yaml: expected a mapping with 'space', 'task', 'search' and 'retrain'"),
        ("- space", "demo.yaml: expected a mapping"),
        ("space: [", "demo.yaml:1: not valid YAML"),
        (
            TEXT.replace("steps: 100", "stepz: 100"),
            r"demo.yaml: search: unknown field 'stepz' \(did you mean 'steps'\?\)",
        ),
        (TEXT.replace("  steps: 100\n", ""), "demo.yaml: search: missing the required field 'steps'"),
        (TEXT.replace("steps: 100", "steps: many"), "demo.yaml: search.steps: Expected 'int', got 'str'"),
        (TEXT.replace("steps: 100", "steps: 0"), "demo.yaml: search.steps: Expected 'int' >= 1"),
        (TEXT.replace("warmup: 0.1", "warmup: 2"), r"demo.yaml: .*'warmup' is a share in \[0, 1\), found 2.0"),
        (TEXT.replace("momentum", "momentun"), r"unknown field 'momentun' \(did you mean 'momentum'\?\)"),
        (
            TEXT.replace("{name: sgd, lr: 0.1", "{name: adam, lr: 0.1"),
            r"lower.optimizer: unknown field 'momentum'; known: lr, betas, weight_decay$",
        ),
        (TEXT + "seed: 1\nseed: 2\n", "key 'seed' is given twice"),
    ],
)
def test_a_file_that_is_wrong_says_where(path: Path, text: str, message: str) -> None:
    path.write_text(text)
    with pytest.raises(InvalidFileError, match=message):
        load_config(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("space: test-config", "space: test-confg", r"unknown search space 'test-confg' \(did you mean 'test-config'"),
        ("channels: 4", "chanels: 4", r"option of space 'test-config' 'chanels' \(did you mean 'channels'"),
        ("channels: 4", "channels: four", "option 'channels' of space 'test-config': .*'four'"),
    ],
)
def test_the_space_and_its_options_are_checked(path: Path, old: str, new: str, message: str) -> None:
    path.write_text(TEXT.replace(old, new))
    with pytest.raises(NASError, match=message):
        load_config(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: test-config, length", "length", "task: missing the field 'name'"),
        ("{name: test-config", "{name: test-confg", r"unknown task 'test-confg' \(did you mean 'test-config'"),
        ("length: 5", "lenght: 5", r"task: unknown field 'lenght' \(did you mean 'length'\?\)"),
        ("length: 5", "length: long", "task: length: Expected 'int', got 'str'"),
    ],
)
def test_the_task_and_its_fields_are_checked(path: Path, old: str, new: str, message: str) -> None:
    path.write_text(TEXT.replace(old, new))
    with pytest.raises(NASError, match=message):
        load_config(path).build_task()


# --- shipped configurations ---


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A plugin with a search space and two configurations beside it; no other space is known."""
    folder = tmp_path / "their_space"
    (folder / "configs").mkdir(parents=True)
    source = "from nas.space import search_space\n\n@search_space('test-shipped')\ndef space(choose, /):\n    ...\n"
    (folder / "__init__.py").write_text(source)
    for name in ("small", "large"):
        (folder / "configs" / f"{name}.yaml").write_text(TEXT)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(nas.space, "_spaces", dict(nas.space._spaces))
    importlib.import_module("their_space")
    monkeypatch.setattr(nas.config, "spaces", lambda: {"test-shipped": "their_space:space"})
    monkeypatch.chdir(tmp_path)
    yield folder / "configs"
    del sys.modules["their_space"]


def test_shipped_configurations_are_found_by_name(shipped: Path) -> None:
    (shipped / "._small.yaml").write_bytes(b"resource fork")
    assert shipped_configs() == {"large": shipped / "large.yaml", "small": shipped / "small.yaml"}
    assert load_config("small", ["seed=3"]).seed == 3


def test_a_file_comes_before_a_shipped_name_but_a_folder_does_not(shipped: Path, tmp_path: Path) -> None:
    (tmp_path / "large").mkdir()
    assert find_config("large") == shipped / "large.yaml"
    (tmp_path / "small").write_text(TEXT)
    assert find_config("small") == Path("small")


def test_unknown_configurations(shipped: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown configuration 'smal' \(did you mean 'small'\?\); .*YAML file"):
        load_config("smal")
    with pytest.raises(InvalidFileError, match=r"^other.yaml: no such file; shipped configurations: large, small$"):
        load_config("other.yaml")


# --- overrides ---


def test_overrides_reach_into_levels() -> None:
    config = parse(
        "search.levels.upper.optimizer.lr=0",
        "search.levels.lower.optimizer.lr=1e-3",
        "search.levels.upper.hypergradient.lower.name=first_order",
        "search.levels.upper.warmup=.5",
        "seed=4",
    )
    assert config.search.levels["upper"].optimizer == Adam(lr=0.0, betas=(0.5, 0.999))
    assert config.search.levels["lower"].optimizer == SGD(lr=1e-3, momentum=0.9)
    assert config.search.levels["upper"].hypergradient["lower"]["name"] == "first_order"
    assert (config.search.levels["upper"].warmup, config.seed) == (0.5, 4)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("search.levels.upper.parameters=[arch.a, '!arch.b']", ("arch.a", "!arch.b")),
        ("search.levels.upper.parameters=['*']", ("*",)),
        ("search.levels.upper.parameters=[]", ()),
    ],
)
def test_lists(override: str, expected: tuple[str, ...]) -> None:
    assert parse(override).search.levels["upper"].parameters == expected


def test_a_whole_section_may_be_given_or_added() -> None:
    config = parse("search.levels.upper.optimizer={name: sgd, lr: 2}", "search.levels.lower.clip=5")
    assert config.search.levels["upper"].optimizer == SGD(lr=2.0)
    assert config.search.levels["lower"].clip == 5.0
    assert parse("search.levels.lower.clip=").search.levels["lower"].clip is None
    assert parse("task.more.deeply=1").task["more"] == {"deeply": 1}


def test_the_last_override_wins() -> None:
    assert parse("seed=1", "seed=2").seed == 2


def test_an_equals_sign_may_be_part_of_the_value() -> None:
    assert parse("task.title='a=b'").task["title"] == "a=b"


def test_an_override_changes_one_place_where_the_data_share_a_part() -> None:
    data = parse_yaml(TEXT, "text")
    data["retrain"]["stages"]["all"]["level"]["optimizer"] = data["search"]["levels"]["lower"]["optimizer"]
    config = parse_config(data, ["search.levels.lower.optimizer.lr=7", "search.levels.upper.optimizer.lr=8"])
    assert [level.optimizer.lr for level in config.search.levels.values()] == [7, 8]
    assert config.retrain.stages["all"].level.optimizer.lr == 0.1


def test_overrides_leave_the_given_data_alone() -> None:
    data = parse_yaml(TEXT, "text")
    parse_config(data, ["search.steps=1", "search.levels.upper.optimizer.lr=5"])
    assert data == parse_yaml(TEXT, "text")


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("search.steps", ConfigError, "'search.steps' is not an override: expected key.path=value"),
        ("=3", ConfigError, "'=3' is not an override"),
        ("search.steps.more=3", ConfigError, "'search.steps.more=3': 'search.steps' is not a mapping"),
        ("search.levels.upper.parameters.0=x", ConfigError, "'search.levels.upper.parameters' is not a mapping"),
        ("serach.steps=3", InvalidFileError, r"serach.steps=3: unknown field 'serach' \(did you mean 'search'\?\)"),
        (
            "search.levels.upper.optimizer.Lr=3",
            InvalidFileError,
            r"Lr=3: search.levels.upper.optimizer: unknown field 'Lr' \(did you mean 'lr'\?\)",
        ),
        ("search.levels.upper.optimizer.lr=fast", InvalidFileError, "lr=fast: .*lr: Expected 'float', got 'str'"),
        ("search.levels.upper.optimizer.name=sgd", InvalidFileError, "unknown field 'betas'"),
        ("search.levels.upper.optimizer.name=adm", InvalidFileError, r"name=adm: .*optimizer.name: .*'adm'"),
        ("search.levels.uper.warmup=0", InvalidFileError, "missing the required field 'parameters'"),
        ("seed=[", InvalidFileError, r"seed=\[.*not valid YAML"),
        ("retrain.stages.all.steps=0", InvalidFileError, "Expected 'int' >= 1"),
        ("search.epochs=0", InvalidFileError, "search.epochs: Expected 'int' >= 1"),
        ("options.channels=x", ConfigError, "option 'channels' of space 'test-config'"),
    ],
)
def test_overrides_that_fit_nowhere(override: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parse(override)


def test_operations_of_a_file_are_taken_up_into_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wide.yaml").write_text("operations:\n  wide: {factory: sep_conv, kernel: 7}\n")
    monkeypatch.chdir(tmp_path)
    config = parse("space=test-operations", "options={operations: wide.yaml}")
    assert config.options["operations"] == {"wide": {"factory": "sep_conv", "kernel": 7}}
    (tmp_path / "wide.yaml").unlink()
    assert parse_config(parse_yaml(config.dump(), "dump")) == config


def test_the_device_must_be_there() -> None:
    assert parse("device=cpu").torch_device() == torch.device("cpu")
    for name in ("cuda:99", "mps"):
        with pytest.raises(
            ConfigError, match=f"device '{name}' is not available here: .*; device=cpu always is"
        ) as error:
            parse(f"device={name}").torch_device()
        assert len(str(error.value)) < 200
    with pytest.raises(ConfigError, match=r"^device must be cpu, cuda, mps, xpu, .*, got 'gpu'$"):
        parse("device=gpu").torch_device()


def test_a_field_in_the_wrong_place_is_shown_its_own() -> None:
    with pytest.raises(InvalidFileError, match=r"unknown field 'relaxation' \(did you mean 'search\.relaxation'\?\)"):
        parse("relaxation=gumbel")
    with pytest.raises(InvalidFileError, match=r"search: unknown field 'stages' "):
        parse("search.stages=3")
