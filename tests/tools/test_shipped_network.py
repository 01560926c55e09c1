"""The choice of the shipped network: which trainings are done, and what the table says of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from nas.errors import ConfigError


@pytest.fixture(scope="module")
def tool(load_tool: Callable[[str], ModuleType]) -> Any:
    return load_tool("shipped_network")


def test_scores_are_averaged_over_seeds(tool: Any) -> None:
    row = {"network": "random 1", "choices": {"alignment": "ofm"}, "parameters": 1200, "mflops": 2.0}
    rows: list[dict[str, Any]] = [
        row | {"seed": 0, "psnr": 30.0},
        row | {"seed": 1, "psnr": 32.0},
        row | {"network": "searched 0", "seed": None},
    ]
    (line,) = list(tool.table(rows))[2:]
    assert line == "| random 1 | ofm | 1,200 | 2 | 2 | 31.00 +- 1.41 |"


def test_rows_of_other_trainings_are_not_mixed(tool: Any, tmp_path: Path) -> None:
    given = argparse.Namespace(
        data="here", steps=7, config="compact", set=[], searches=1, results=tmp_path / "made" / "rows.jsonl"
    )
    tool.results(given).add({"network": "plain CNN", "seed": 0, "psnr": 30.0})
    given.data = "there"  # where the films are does not matter
    assert tool.results(given).done["plain CNN", 0]["psnr"] == 30.0
    for name, value in (("steps", 8), ("set", ["task.crop=64"]), ("searches", 2)):
        with pytest.raises(ConfigError, match="another configuration"):
            tool.results(argparse.Namespace(**{**vars(given), name: value}))


def test_the_table_in_the_docs_is_that_of_the_rows(
    tool: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (tool.RESULTS.parents[1] / "tmics.md").read_text(encoding="utf-8")
    for rows in (tool.RESULTS, tool.RESULTS.with_stem("compact-choice-800")):
        monkeypatch.setattr("sys.argv", ["shipped_network.py", "table", "--results", str(rows)])
        tool.main()
        assert capsys.readouterr().out in page


@pytest.mark.parametrize("flow", [None, {"name": "pyramid", "width": 4, "levels": 2}])
def test_the_plain_network_restores_frames_of_any_size(tool: Any, flow: Any) -> None:
    restored = tool.plain_cnn.derived(tool.Genotype(space="plain-cnn", choices={}, options={"flow": flow}))(
        torch.rand(1, 5, 3, 17, 22)
    )
    assert restored.output.shape == (1, 3, 17, 22)
    assert restored.weight.item() == 1


@pytest.mark.parametrize(
    ("space", "options", "place"),
    [
        ("tmics", {}, "alignment.ofm.flow"),
        ("plain-cnn", {"flow": {"name": "pyramid"}}, "alignment.flow"),
        ("plain-cnn", {"flow": None}, None),
    ],
)
def test_every_network_with_a_learned_flow_begins_with_the_shipped_one_and_keeps_it(
    tool: Any, tmp_path: Path, space: str, options: dict[str, Any], place: str | None
) -> None:
    given = argparse.Namespace(data=str(tmp_path), steps=7, config="compact", set=[])
    genotype = tool.Genotype(space=space, choices={}, options=options)
    config = tool.configured(given, genotype)
    assert config.initial == ({} if place is None else {place: "tmics-compact-flow"})
    assert config.retrain.steps == 7
    if place is not None:
        assert f"!{place}.*" in config.retrain.stages["all"].level.parameters


def test_the_shipped_network_is_compared_with_searched_random_and_plain_ones(
    tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool, "flops", lambda genotype: 1.0)
    given = argparse.Namespace(data=str(tmp_path), steps=7, config="compact", set=[], searches=1)
    shipped = tool.Genotype.load(tool.model_folder("tmics-compact") / "genotype.yaml")
    choices = {**shipped.choices, "cell/1": "gated_5x5"}
    row = {"network": "searched 0", "seed": None, "space": "tmics", "options": shipped.options, "choices": choices}
    rows = argparse.Namespace(done={("searched 0", None): row})
    found = dict(tool.candidates(given, rows))
    assert list(found)[:2] == ["searched 0", "shipped"]
    assert list(found)[-2:] == ["plain CNN", "plain CNN behind the flow"]
    assert len(found) == 8 == len({str(genotype) for genotype in found.values()})
    row["choices"] = shipped.choices
    assert "shipped" not in dict(tool.candidates(given, rows)), "the search chose it"
