"""Tables: from files of every format, in any order; what does not fit the space is one line."""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nas
from nas.benchmark.table import Published, Table, Target, find_table
from nas.errors import ConfigError, InvalidFileError, NASError, SpaceError, UnknownNameError
from nas.files import dump_yaml
from nas.registry import kind
from nas.testing import TableTests
from tabulated import CSV, toy_table


def write(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("suffix", [".csv", ".json", ".yaml", ".yml", ".csv.gz", ".json.gz", ".yml.gz"])
def test_every_format_has_the_same_rows(tmp_path: Path, suffix: str) -> None:
    header, *lines = CSV.splitlines()
    names, cells = header.split(",")[1:], [line.split(",") for line in reversed(lines)]  # in another order
    data = {key: dict(zip(names, map(float, row), strict=True)) for key, *row in cells}
    texts = {".csv": "\n".join([header, *reversed(lines)]), ".json": json.dumps(data), ".yaml": dump_yaml(data)}
    file = write(tmp_path / f"toy{suffix}", texts[{".yml": ".yaml"}.get(base := suffix.removesuffix(".gz"), base)])
    table = Table.of("toy-pair", file, targets={"toy": Target("val", "test")})
    assert table.columns.keys() == {"val", "test"}
    for name, column in table.columns.items():
        assert np.array_equal(column, toy_table().columns[name])
    best = table.genotype(int(table.column("val").argmax()))
    assert best.choices == {"width": 64, "body": "conv"}
    assert best.options == {"channels": 2}
    assert table.row(best.choices) == 4
    assert best.build()(torch.zeros(1, 2, 3, 3)).shape == (1, 64, 3, 3)


@pytest.mark.parametrize("quote", ["", "'", '"'])
@pytest.mark.parametrize("more", ["", "\n# a comment: read by the slower way\n"])
def test_a_number_for_each_key_is_one_column(tmp_path: Path, quote: str, more: str) -> None:
    """Keys such as 16:16 are text, not numbers to the base of 60."""

    def widths(choose: nas.Chooser, /) -> torch.nn.Module:
        first, second = choose.width("a", [8, 16]), choose.width("b", [8, 16])
        layers = torch.nn.Conv2d(1, first.channels, 1), first, torch.nn.LazyConv2d(second.channels, 1), second
        return torch.nn.Sequential(*layers)

    space = nas.SearchSpace("toy-widths", widths)
    keys = ("8:8", "8:16", "16:8", "16:16")
    text = "".join(f"{quote}{key}{quote}: {91.5 + number}\n" for number, key in enumerate(keys))
    table = Table.of(space.name, write(tmp_path / "widths.yml", text + more))
    assert table.targets == {"value": Target("value", "value")}
    assert table.column("value").tolist() == [91.5, 92.5, 93.5, 94.5]


def test_a_list_makes_numbered_columns() -> None:
    table = Table.of("toy-pair", {f"{a}:{b}": {"acc": [a, 2 * a]} for a in (8, 16, 64) for b in ("conv", "skip")})
    assert table.column("acc_2").tolist() == [16, 16, 32, 32, 128, 128]
    assert table.targets == {}


def test_an_importer_reads_the_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kind("importer"), "_registered", dict(kind("importer")._registered))

    @nas.register("importer", "toy-words")
    def read(text: str) -> nas.Genotype:
        width, body = text.split()
        return nas.Genotype(space="toy-pair", choices={"width": int(width), "body": body})

    path = write(tmp_path / "toy.csv", re.sub(r"^(\d+):", r"\1 ", CSV, flags=re.MULTILINE))
    table = Table.of("toy-pair", path, importer="toy-words")
    assert np.array_equal(table.column("test"), toy_table().column("test"))
    with pytest.raises(UnknownNameError, match="toy-word"):
        Table.of("toy-pair", path, importer="toy-word")
    with pytest.raises(InvalidFileError, match="row 1: network '8 conv' must have 2 parts"):
        Table.of("toy-pair", path)


# Bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("16:conv,75.0,74.0\n", ""), "each of the 6 networks of space 'toy-pair', got 5; there is none for 16:conv"),
        (("16:conv", "8:conv"), "row 3: '8:conv' must be listed once"),
        (("16:conv", "17:conv"), "row 3: network '17:conv': 'width' must be one of 8, 16, 64, got '17'"),
        (("75.0", "high"), "row 3: 'val' must be a finite number, got 'high'"),
        (("75.0", "nan"), "row 3: 'val' must be a finite number, got 'nan'"),
        (("75.0", "inf"), "row 3: 'val' must be a finite number, got 'inf'"),
        (("75.0", ""), "row 3: 'val' must be a finite number, got ''"),
        (("75.0,74.0", "75.0"), "row 3 must have 3 cells, as the header, got 2"),
        (("val,test", "val,val"), "columns must have different names, got 'val' twice"),
        (("val,test", "val,probe"), "unknown column 'test'; known: val, probe"),
        (("network,", '"network,'), "not valid CSV"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    path = write(tmp_path / "toy.csv", CSV.replace(*change))
    with pytest.raises(NASError) as error:
        Table.of("toy-pair", path, targets={"toy": Target("val", "test")})
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("toy.csv", b"", "at least one column, got none"),
        ("toy.csv", b"network,val\n", "at least one column, got none"),
        ("toy.csv", b"network\n8:conv\n", "at least one column, got none"),
        ("toy.csv", b"\xff\xfe", "not a text file"),
        ("toy.csv.gz", b"network", "not a gzip file"),
        ("toy.csv.gz", gzip.compress(b"network", mtime=0)[:-9], "not a gzip file"),
        ("toy.json", b"{", "not valid JSON"),
        ("toy.json", b"[" * 99999, "toy.json: nested too deeply"),
        ("toy.yaml", b"[" * 99999, "toy.yaml: nested too deeply"),
        ("toy.json", b"[1]", "must be a mapping of networks to numbers, got list"),
        (
            "toy.json",
            b'{"8:conv": {"a": 1}, "8:skip": {"b": 1}}',
            "'8:skip' must have the columns a, as the first, got b",
        ),
        ("toy.json", b'{"8:conv": null}', "network '8:conv': 'value' must be a finite number, got None"),
        ("toy.json", b'{"8:conv": true}', "must be a finite number, got True"),
        ("toy.yml", b"8:conv: 1\n8:conv: 2\n", "key '8:conv' is given twice"),
        ("toy.json", b'{"\\ud800": 1}', "not valid JSON"),
        ("toy.json", b'{"8:conv": 1, "8:skip": 2, "8:conv": 3}', "key '8:conv' must be given once"),
        ("toy.json", b'{"8:conv": {"a": 1, "a": 2}}', "key 'a' must be given once"),
        ("toy.yml", b"1: 5\n'1': 6\n", "network '1' must be given once"),
        ("toy.json", b'{"8:conv": {"a": [1, 2], "a_1": 5}}', "network '8:conv': column 'a_1' must be given once"),
        ("toy.txt", b"", "unknown format of a table '.txt'; known: .csv, .json, .yaml, .yml"),
    ],
)
def test_other_files_are_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(NASError) as error:
        Table.of("toy-pair", tmp_path / name)
    assert str(error.value).startswith(str(tmp_path / name))
    assert message in str(error.value)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match=r"none\.csv: cannot be read"):
        Table.of("toy-pair", tmp_path / "none.csv")


def test_a_space_larger_than_the_table_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match=r"each network .* 'nas-bench-201', which has more than 1,012, got 6"):
        Table.of("nas-bench-201", write(tmp_path / "toy.csv", CSV), options={"cells": 1})


def test_a_genotype_of_another_space_has_no_row() -> None:
    with pytest.raises(SpaceError, match="one of the 6 of the table, got body=conv"):
        toy_table().row({"body": "conv"})


# The registry and the conformance tests


def test_a_table_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kind("table"), "_registered", {})
    nas.register("table", "toy")(toy_table)
    nas.register("table", "nothing")(lambda: None)
    assert len(find_table("toy")) == 6
    with pytest.raises(ConfigError, match="'nothing' must be a function that returns a Table, got NoneType"):
        find_table("nothing")
    with pytest.raises(UnknownNameError, match=r"unknown table 'nas-bench-202'.*did you mean 'nas-bench-201'"):
        find_table("nas-bench-202")


@pytest.mark.parametrize(
    ("test", "changes", "message"),
    [
        ("columns_have_a_finite_number", {"columns": {}}, "at least one column"),
        ("columns_have_a_finite_number", {"columns": {"val": np.zeros(5)}}, "must have 6 numbers"),
        ("columns_have_a_finite_number", {"columns": {"val": np.full(6, np.nan)}}, "must be finite"),
        ("targets_name", {"targets": {}}, "must have a target"),
        ("targets_name", {"targets": {"toy": Target("val", "tset")}}, "'tset', which the table lacks"),
        ("targets_name", {"published": [Published("random", "c10", 1, 1, 1, "")]}, "target 'c10'"),
    ],
)
def test_a_broken_table_fails_its_test(test: str, changes: dict[str, Any], message: str) -> None:
    broken = type("Broken", (TableTests,), {"table": staticmethod(lambda: replace(toy_table(), **changes))})()
    (name,) = (name for name in dir(TableTests) if name.startswith(f"test_{test}"))
    with pytest.raises(AssertionError, match=message):
        getattr(broken, name)()


class TestToy(TableTests):
    table = staticmethod(toy_table)
