from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas.benchmark.table_file import read_rows
from nas.errors import ConfigError, InvalidFileError
from nas.files import parse_yaml
from nas.run.config import Config, load_config, parse_config
from nas.space.definition import find_space

KEYS = ["".join(each) for each in itertools.product("012", repeat=4)]


@pytest.fixture(scope="module")
def tool(load_tool: Callable[[str], ModuleType]) -> ModuleType:
    return load_tool("enumerate_cells")


@pytest.fixture(scope="module")
def config(few_images: dict[str, object]) -> Config:
    """Two steps on eight images of 8x8 pixels."""
    changes = {"task.data": few_images, "task.batch": 4, "options.channels": 2, "retrain.stages.all.steps": 2}
    return load_config("nas-bench-201-small", changes)


def rows_of(tool: ModuleType, config: Config, path: Path, **limits: object) -> list[dict[str, object]]:
    rows = tool.rows_of(path, config)
    tool.train_all(config, rows, **{"seeds": 2, "only": ["2100", "0000"], "minutes": None, **limits})
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in tool.rows_of(path, config).done.values()]


def test_all_81_cells_have_a_key_and_an_order(tool: ModuleType, config: Config) -> None:
    found = tool.genotypes(config)
    assert list(found) == KEYS
    assert found["0120"].choices == {
        "cell/1": (0,),
        "cell/1<-0": "skip_connect",
        "cell/2": (0, 1),
        "cell/2<-0": "nor_conv_3x3",
        "cell/2<-1": "avg_pool_3x3",
        "last": "skip_connect",
    }
    assert sorted(tool.shuffled(found)) == KEYS
    assert tool.shuffled(found)[:3] != KEYS[:3]


def test_networks_of_one_function_are_trained_once(tool: ModuleType, config: Config) -> None:
    every, image = tool.genotypes(config), torch.randn(2, 1, 8, 8, dtype=torch.double, generator=generator())
    trained = tool.trained_for(every)
    assert len(set(trained.values())) == 54
    assert [key for key, stands in trained.items() if stands == "0120"] == ["0120", "0210", "1200", "2100"]

    def output(key: str) -> Tensor:
        network = find_space(config.space).derived(every[key]).double()
        for parameter in network.parameters():  # equal operations get equal weights
            nn.init.normal_(parameter, generator=generator())
        return network(image)

    outputs = {key: output(key) for key in every}
    for key, stands in trained.items():
        assert torch.allclose(outputs[key], outputs[stands], rtol=1e-9, atol=0)
    assert not torch.allclose(outputs["0120"], outputs["0121"], rtol=1e-3)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_stopped_enumeration_continues_to_the_same_rows(tool: ModuleType, config: Config, tmp_path: Path) -> None:
    whole = rows_of(tool, config, tmp_path / "whole.jsonl")
    assert [row["seed"] for row in whole] == [0, 0, 1, 1]
    assert {row["cell"] for row in whole} == {"0120", "0000"}  # 0120 is trained for 2100
    assert {row["params"] for row in whole if row["cell"] == "0000"} < {row["params"] for row in whole}
    text = (tmp_path / "whole.jsonl").read_bytes()
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(text[: text.index(b"\n", text.index(b'"seed": 0')) + 20])  # a whole row, and some of another
    assert rows_of(tool, config, cut) == whole
    before = cut.read_bytes()
    assert rows_of(tool, config, cut, minutes=0.0) == whole
    assert cut.read_bytes() == before


def test_rows_of_another_configuration_are_refused(tool: ModuleType, config: Config, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    tool.rows_of(path, config)
    with pytest.raises(ConfigError, match=r"rows\.jsonl: holds rows of another configuration"):
        tool.rows_of(path, load_config("nas-bench-201-small"))


def test_a_damaged_line_is_an_error(tool: ModuleType, config: Config, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    tool.rows_of(path, config)
    path.write_bytes(path.read_bytes() + b'{"cell": "0000"}\n')
    with pytest.raises(InvalidFileError, match=r"rows\.jsonl:2: must be a row of this program"):
        tool.rows_of(path, config)


def test_an_unknown_network_is_an_error(tool: ModuleType, config: Config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must name networks such as 0000, got 0003"):
        rows_of(tool, config, tmp_path / "rows.jsonl", only=["0003"])


def fake(values: dict[str, list[float]]) -> SimpleNamespace:
    done = {
        (key, seed): {"val_accuracy": value, "test_accuracy": value / 2, "params": 7, "cpu_seconds": 2 * seed}
        for key, each in values.items()
        for seed, value in enumerate(each)
    }
    return SimpleNamespace(done=done, path=Path("rows.jsonl"))


def test_separation_in_closed_form(tool: ModuleType) -> None:
    rows = fake({"00": [0.1, 0.3], "01": [0.4, 0.6], "02": [0.8, 0.8]})
    rows.done["10", 0] = {"val_accuracy": 1.0}  # has no second seed
    found = tool.separation(rows, 2)
    assert found["networks"] == 3
    assert found["correlation"] == pytest.approx(np.corrcoef([0.1, 0.4, 0.8], [0.3, 0.6, 0.8])[0, 1])
    assert found["deviation"] == pytest.approx(((0.02 + 0.02 + 0) / 3) ** 0.5)
    assert found["spread"] == pytest.approx((0.8 - 0.5) / found["deviation"])
    with pytest.raises(ConfigError, match="at least 3 networks must have 2 seeds, got 2"):
        tool.separation(fake({"00": [0.1, 0.3], "01": [0.4, 0.6], "02": [0.8]}), 2)


def test_the_table_holds_percent_by_seed_and_their_mean(tool: ModuleType, tmp_path: Path) -> None:
    text = tool.table_text(fake({"00": [0.5, 0.6], "01": [0.25, 0.35]}), {"00": "00", "01": "01", "10": "01"}, 2)
    first, second, third = csv.DictReader(io.StringIO(text))
    assert first == {
        **{"cell": "00", "val_0": "50.00", "val_1": "60.00", "test_0": "25.00", "test_1": "30.00"},
        **{"val": "55.000", "test": "27.500", "params": "7", "seconds": "1.0"},
    }
    assert second == {**third, "cell": "01"}
    for name in ("cells.csv", "cells.csv.gz"):
        tool.write_table(tmp_path / name, text)
        assert read_rows(tmp_path / name).columns["test"].tolist() == [27.5, 15.0, 15.0]
    assert third["cell"] == "10"
    with pytest.raises(ConfigError, match=r"every network with every seed, got none for 01"):
        tool.table_text(fake({"00": [0.5, 0.6], "01": [0.25]}), {"00": "00", "01": "01"}, 2)


def test_rows_are_json_with_the_configuration_first(tool: ModuleType, config: Config, tmp_path: Path) -> None:
    tool.rows_of(tmp_path / "rows.jsonl", config)
    (first,) = (tmp_path / "rows.jsonl").read_text().splitlines()
    again = tool.rows_of(tmp_path / "rows.jsonl", parse_config(parse_yaml(json.loads(first)["config"], "")))
    assert again.done == {}
