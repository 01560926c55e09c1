"""Configurations that state only what differs from a base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nas.errors import ConfigError, InvalidFileError, UnknownNameError
from nas.files import dump_yaml, write_text
from nas.run.config import load_config
from nas.run.config_files import merged, read_config


@pytest.mark.parametrize(
    ("below", "above", "expected"),
    [
        ({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"c": 4}, "e": 5}, {"a": 1, "b": {"c": 4, "d": 3}, "e": 5}),
        ({"a": 1, "b": {"c": 2, "d": 3}}, {"a": None, "b": {"c": None}, "e": {"f": None}}, {"b": {"d": 3}}),
        ({}, {"a": {}, "b": {"c": {"d": None}}}, {"a": {}}),
        ({"a": [1, 2], "b": {"c": 1}}, {"a": [3], "b": "x"}, {"a": [3], "b": "x"}),
        ({"a": {"name": "sgd", "lr": 1}}, {"a": {"lr": 2}}, {"a": {"name": "sgd", "lr": 2}}),
        ({"a": {"name": "sgd", "lr": 1}}, {"a": {"name": "adam"}}, {"a": {"name": "adam"}}),
        ({"a": {"kind": "cifar-10", "root": "x"}}, {"a": {"kind": "digits"}}, {"a": {"kind": "digits"}}),
    ],
)
def test_what_is_stated_comes_before_the_base(
    below: dict[str, Any], above: dict[str, Any], expected: dict[str, Any]
) -> None:
    before = repr(below)
    assert merged(below, above) == expected
    assert repr(below) == before


def test_a_base_is_a_name_or_a_file_beside_and_may_have_a_base(tmp_path: Path) -> None:
    write_text(tmp_path / "one.yaml", "base: digits\nsearch: {steps: 20, levels: {upper: {optimizer: {lr: 1e-2}}}}\n")
    write_text(tmp_path / "two.yaml", "base: one.yaml\nsearch: {epochs: 2}\n")
    config, digits = load_config(tmp_path / "two.yaml", {"seed": 3}), load_config("digits")
    assert (config.search.steps, config.search.epochs, config.seed) == (20, 2, 3)
    assert config.search.levels["upper"].optimizer == {**digits.search.levels["upper"].optimizer, "lr": 1e-2}
    assert config.search.levels["lower"] == digits.search.levels["lower"]
    assert load_config({"base": "digits", "seed": 3}) == load_config("digits", {"seed": 3})
    assert "base" not in config.dump()


def test_a_bad_base_is_one_line(tmp_path: Path) -> None:
    for name, base in (("a", "b.yaml"), ("b", "a.yaml"), ("c", "[digits]"), ("d", "digts"), ("e", "f.yaml")):
        write_text(tmp_path / f"{name}.yaml", f"base: {base}\n")
    write_text(tmp_path / "f.yaml", "- 1\n")
    with pytest.raises(ConfigError, match=r"b\.yaml: base must lead .*got a\.yaml, which leads back"):
        read_config(tmp_path / "a.yaml")
    with pytest.raises(ConfigError, match=r"c\.yaml: base must be the name .*got \['digits'\]"):
        read_config(tmp_path / "c.yaml")
    with pytest.raises(UnknownNameError, match=r"'digts' \(did you mean 'digits'\?\)"):
        read_config(tmp_path / "d.yaml")
    with pytest.raises(InvalidFileError, match=r"f\.yaml must be a mapping"):
        read_config(tmp_path / "e.yaml")


@pytest.mark.parametrize("name", ["x" * 300, "[" * 5000, "x\0y"])
def test_a_base_whose_name_no_file_can_have(name: str, tmp_path: Path) -> None:
    write_text(tmp_path / "one.yaml", dump_yaml({"base": name}))
    with pytest.raises(UnknownNameError, match="unknown configuration"):
        load_config(tmp_path / "one.yaml")
