"""Configurations: files, shipped names and overrides, and what their mistakes say."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
import torch
from torch import nn

import toy
from nas.errors import ConfigError, InvalidFileError, NASError, UnknownNameError
from nas.files import parse_yaml
from nas.registry import kind
from nas.run.config import Config, load_config, parse_config
from nas.run.config_files import find_config, shipped_configs
from nas.run.task import TASKS
from nas.space.chooser import Chooser
from nas.space.definition import search_space
from nas.space.operations import OperationSet
from nas.space.primitives import DARTS

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


class Lines(toy.ToyTask):
    Config = Fields  # type: ignore[assignment]


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS._registered, "test-config", Lines)


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
    assert config.search.levels["lower"].optimizer == {
        "name": "sgd",
        "weight_decay": 0.0,
        "nesterov": False,
        "lr": 0.1,
        "momentum": 0.9,
    }
    assert config.search.levels["upper"].optimizer == {
        "name": "adam",
        "weight_decay": 0.0,
        "decoupled": True,
        "lr": 3e-4,
        "betas": (0.5, 0.999),
    }
    assert config.search.levels["upper"].hypergradient == {"lower": {"name": "unrolled", "steps": 2, "memory": "keep"}}
    assert (config.seed, config.search.relaxation, config.search.epochs) == (0, "softmax", 10)


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


def test_the_task_of_a_retraining_has_its_own_fields_first(path: Path) -> None:
    config = load_config(path, ["retrain.task.length=3"])
    built: list[Any] = [config.build_task(retraining=retraining) for retraining in (False, True)]
    assert [task.config.length for task in built] == [5, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "demo.yaml must be a mapping with 'space', 'task', and 'search' or 'retrain'"),
        ("- space", "demo.yaml must be a mapping"),
        ("space: [", "demo.yaml:1: not valid YAML"),
        (
            TEXT.replace("steps: 100", "stepz: 100"),
            r"demo.yaml: search: unknown field 'stepz' \(did you mean 'steps'\?\)",
        ),
        (TEXT.replace("  steps: 100\n", ""), "demo.yaml: search: missing the required field 'steps'"),
        (TEXT.replace("steps: 100", "steps: many"), "demo.yaml: search.steps: Expected 'int', got 'str'"),
        (TEXT.replace("steps: 100", "steps: 0"), "demo.yaml: search.steps must be at least 1, got 0"),
        (TEXT.replace("warmup: 0.1", "warmup: 2"), "demo.yaml: search.levels.upper.warmup.* 1"),
        (TEXT.replace("momentum", "momentun"), r"lower.optimizer.momentun .*\(did you mean 'momentum'\?\)"),
        (
            TEXT.replace("{name: sgd, lr: 0.1", "{name: adam, lr: 0.1"),
            r"lower.optimizer.momentum .*'adam'; it takes lr, betas, weight_decay, decoupled$",
        ),
        (TEXT + "seed: 1\nseed: 2\n", "key 'seed' is given twice"),
    ],
)
def test_a_file_that_is_wrong_says_where(path: Path, text: str, message: str) -> None:
    path.write_text(text)
    with pytest.raises(InvalidFileError, match=message):
        load_config(path)


@pytest.mark.parametrize("section", ["search", "retrain"])
def test_a_section_that_is_not_needed_may_be_missing(path: Path, section: Literal["search", "retrain"]) -> None:
    config = load_config(path, [f"{section}=null"])
    assert section not in parse_yaml(config.dump(), "dump")
    path.write_text(config.dump())
    assert load_config(path) == config
    assert config.build_task(retraining=True) is not None
    with pytest.raises(ConfigError, match=rf"^{section}: .* needs this section.*Add one, such as `{section}: {{"):
        getattr(config, section)


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
    source = "from nas.space.definition import search_space\n\n@search_space('test-shipped')\n"
    source += "def space(choose, /):\n    ...\n"
    (folder / "__init__.py").write_text(source)
    for name in ("small", "large"):
        (folder / "configs" / f"{name}.yaml").write_text(TEXT)
    monkeypatch.syspath_prepend(tmp_path)
    spaces = kind("search space")
    monkeypatch.setattr(spaces, "_registered", {})
    real = metadata.entry_points
    monkeypatch.setattr(metadata, "entry_points", lambda group: [] if group == spaces.group else real(group=group))
    importlib.import_module("their_space")
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
        "search.levels.upper.hypergradient.lower=first_order",
        "search.levels.upper.warmup=.5",
        "seed=4",
    )
    assert config.search.levels["upper"].optimizer == {
        "name": "adam",
        "weight_decay": 0.0,
        "decoupled": True,
        "lr": 0.0,
        "betas": (0.5, 0.999),
    }
    assert config.search.levels["lower"].optimizer == {
        "name": "sgd",
        "weight_decay": 0.0,
        "nesterov": False,
        "lr": 1e-3,
        "momentum": 0.9,
    }
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
    assert config.search.levels["upper"].optimizer == {
        "name": "sgd",
        "weight_decay": 0.0,
        "nesterov": False,
        "momentum": 0.0,
        "lr": 2.0,
    }
    assert config.search.levels["lower"].clip == 5.0
    assert parse("search.levels.lower.clip=").search.levels["lower"].clip is None
    assert parse("task.more.deeply=1").task["more"] == {"deeply": 1}


def test_null_for_what_is_absent_changes_nothing() -> None:
    data = {key: value for key, value in parse_yaml(TEXT, "text").items() if key != "retrain"}
    assert parse_config(data, ["retrain.epochs=", "task.more.deeply="]) == parse_config(data)
    assert parse_config({**data, "retrain": None}, {"retrain.stages.all.steps": None}) == parse_config(data)


def test_the_last_override_wins() -> None:
    assert parse("seed=1", "seed=2").seed == 2


def test_an_equals_sign_may_be_part_of_the_value() -> None:
    assert parse("task.title='a=b'").task["title"] == "a=b"


def test_an_override_changes_one_place_where_the_data_share_a_part() -> None:
    data = parse_yaml(TEXT, "text")
    data["retrain"]["stages"]["all"]["level"]["optimizer"] = data["search"]["levels"]["lower"]["optimizer"]
    config = parse_config(data, ["search.levels.lower.optimizer.lr=7", "search.levels.upper.optimizer.lr=8"])
    assert [level.optimizer["lr"] for level in config.search.levels.values()] == [7, 8]
    assert config.retrain.stages["all"].level.optimizer["lr"] == 0.1


def test_overrides_leave_the_given_data_alone() -> None:
    data = parse_yaml(TEXT, "text")
    parse_config(data, ["search.steps=1", "search.levels.upper.optimizer.lr=5"])
    assert data == parse_yaml(TEXT, "text")


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("search.steps", ConfigError, "key.path=value, .* got 'search.steps'"),
        ("=3", ConfigError, "key.path=value, .* got '=3'"),
        ("search.steps.more=3", ConfigError, "'search.steps.more': 'search.steps' must be a mapping .*, got 100"),
        ("search.levels.upper.parameters.0=x", ConfigError, "'search.levels.upper.parameters' must be a mapping"),
        ("serach.steps=3", InvalidFileError, r"serach.steps=3: unknown field 'serach' \(did you mean 'search'\?\)"),
        (
            "search.levels.upper.optimizer.Lr=3",
            InvalidFileError,
            r"Lr=3: search.levels.upper.optimizer.Lr .*\(did you mean 'lr'\?\)",
        ),
        (
            "search.levels.upper.optimizer.lr=fast",
            InvalidFileError,
            "lr=fast: .*upper.optimizer.lr .*got 'fast'",
        ),
        ("search.levels.upper.optimizer.name=sgd", InvalidFileError, "optimizer.betas .*'sgd'"),
        ("search.levels.upper.optimizer.name=adm", InvalidFileError, r"name=adm: .*optimizer: .*'adm'"),
        ("search.levels.uper.warmup=0", InvalidFileError, "missing the required field 'parameters'"),
        ("seed=[", InvalidFileError, r"seed=\[.*not valid YAML"),
        ("retrain.stages.all.steps=0", InvalidFileError, "stages.all.steps must be at least 1, got 0"),
        ("search.epochs=0", InvalidFileError, "search.epochs must be at least 1, got 0"),
        ("search.evaluations=0", InvalidFileError, "search.evaluations must be at least 1, got 0"),
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
    with pytest.raises(InvalidFileError, match=r"search: unknown field 'stage' "):
        parse("search.stage=3")
