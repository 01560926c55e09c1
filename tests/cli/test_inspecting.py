"""Commands that look, on the toy space and on TMICS."""

from __future__ import annotations

import importlib.metadata
import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import nn

import toy
from nas.errors import ConfigError
from nas.files import parse_yaml, write_text
from nas.genotype.file import Genotype
from nas.registry import kind
from nas.run.config import load_config
from nas.run.config_files import find_config, shipped_configs
from nas.space.chooser import Chooser, Relaxed
from nas.space.definition import find_space, search_space
from nas.space.operations import OperationSet

GENOTYPE = Genotype(space="toy", options={"channels": 4}, choices=toy.DEAREST)

Nas = Callable[..., Any]


@pytest.fixture
def genotype(tmp_path: Path) -> Path:
    GENOTYPE.save(tmp_path / "toy.yaml")
    return tmp_path / "toy.yaml"


def parameters(genotype: Genotype) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in find_space(genotype.space).derived(genotype).parameters())


# nas spaces, ops, config


def test_spaces(nas: Nas) -> None:
    result = nas("spaces")
    assert result.code == 0
    assert re.search(r"^tmics +6 +Video deraining .* tmics_space\.space:tmics( \(entry point\))?$", result.out, re.M)
    assert re.search(r"^toy +2 +Two decisions for tests\. +toy:toy$", result.out, re.M)


@pytest.mark.filterwarnings("default")
def test_one_broken_plugin_stops_nobody_else(
    nas: Nas, refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_broken_plugin.py").write_text("raise RuntimeError('no GPU')")
    (tmp_path / "a_strange_plugin.py").write_text(
        "import nas\n@nas.search_space('strange')\ndef strange(choose, /):\n    raise KeyError('lost')\n"
    )
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    points = "broken = a_broken_plugin:space\nstrange = a_strange_plugin:strange\n"
    (info / "entry_points.txt").write_text(f"[nas.search_spaces]\n{points}")
    monkeypatch.syspath_prepend(tmp_path)
    for command in (("config",), ("spaces",), ("ops",), ("config", "demo")):
        result = nas(*command)
        assert result.code == 0
        assert result.out
        warnings = result.err.splitlines()
        assert all(line.startswith("nas: warning: left out search space ") for line in warnings)
        assert (
            "a_broken_plugin:space of the installed package 'broken' cannot be imported (RuntimeError: no"
            in warnings[0]
        )
        assert warnings[1:] == (
            ["nas: warning: left out search space 'strange': its function raises KeyError: 'lost'"]
            if command == ("spaces",)
            else []
        )
    assert "search space 'broken': a_broken_plugin:space of the installed package 'broken'" in refused("show", "broken")
    del sys.modules["a_strange_plugin"], kind("search space")._registered["strange"]


def test_ops(nas: Nas) -> None:
    result = nas("ops")
    assert result.code == 0
    assert re.search(r"^tmics +residual_3x3, residual_5x5, dense_3x3,", result.out, re.M)
    for name in ("darts", "nas-bench-201", "sep_conv", "spatial_attention"):
        assert re.search(rf"^{name} +\S", result.out, re.M)
    assert re.search(r"^dilated_5x5 +ReLU, dilated depthwise", nas("ops", "tmics").out, re.M)


def test_ops_of_a_file(nas: Nas, refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("operations:\n  sep_7x7: {factory: sep_conv, kernel: 7}\n")
    assert re.search(r"^sep_7x7 +Twice: ReLU, depthwise", nas("ops", tmp_path / "mine.yaml").out, re.M)
    (tmp_path / "mine.yaml").write_text("operations:\n  sep_7x7: {factory: sepconv}\n")
    assert re.search(
        r"mine\.yaml: operations\.sep_7x7: unknown operation 'sepconv' \(did you mean 'sep_conv'\?\)",
        refused("ops", tmp_path / "mine.yaml"),
    )
    assert "unknown operation set 'dats' (did you mean 'darts'?)" in refused("ops", "dats")


def test_config_lists_and_prints(nas: Nas, refused: Callable[..., str]) -> None:
    assert {"demo", "toy"} <= set(nas("config").out.split())
    assert nas("config").out.split() == list(shipped_configs())
    message = refused("config", "demos")
    assert "unknown configuration 'demos' (did you mean 'demo'?)" in message


def test_a_printed_configuration_can_be_read(nas: Nas, tmp_path: Path) -> None:
    for name in shipped_configs():
        result = nas("config", name)
        assert result.code == 0
        write_text(tmp_path / f"{name}.yaml", result.out)
        assert load_config(tmp_path / f"{name}.yaml") == load_config(name)
        text = find_config(name).read_text(encoding="utf-8")
        if "\nbase: " in text:
            assert "\nspace: " in result.out, "whole"
            text = text.splitlines()[0]
        assert result.out.startswith(text), "comments included"


# nas show


def test_show_a_space(nas: Nas) -> None:
    result = nas("show", "toy", "channels=6")
    assert result.code == 0
    assert result.out.startswith(f"{inspect.cleandoc(find_space('toy').__doc__ or '')}\n\ntoy: channels=6\n")
    assert re.search(r"^first +operation +conv, depthwise, scale *$", result.out, re.M)
    everything = sum(p.numel() for p in find_space("toy").describe(channels=6).network.parameters())
    outside = parameters(Genotype(space="toy", options={"channels": 6}, choices=toy.CHEAPEST)) - 6  # of `scale`
    assert result.out.endswith(f"of the supernet: {everything:,}; outside every decision: {outside:,}\n")


@pytest.mark.parametrize(
    ("name", "passes"),
    [("darts", {"stride", "affine"}), ("digits", {"affine"}), ("nas-bench-201", {"affine"}), ("tmics", set())],
)
def test_show_what_a_space_passes_to_its_operations(name: str, passes: set[str], nas: Nas) -> None:
    told = re.search(r"The factories in `operations`\s+take\s+([^.]*)\.", nas("show", name).out)
    assert told is not None
    assert set(re.findall(r"`(\w+)`", told[1])) == {"channels"} | passes
    fits = OperationSet({"op": lambda channels, **keywords: _recorded(keywords, passes)})
    with torch.device("meta"):
        find_space(name)(Relaxed(lambda label: torch.ones(1)), operations=fits)
    for unfit in (lambda: nn.Identity(), lambda channels, *, missing: nn.Identity()):
        with pytest.raises(ConfigError, match="candidate operation 'op' must take") as error:
            find_space(name).describe(operations=OperationSet({"op": unfit}))
        assert "\n" not in str(error.value)


def _recorded(keywords: Mapping[str, object], expected: set[str]) -> nn.Module:
    assert set(keywords) == expected
    return nn.Identity()


@search_space("toy-depth")
def deepening(choose: Chooser, /) -> nn.Module:
    return choose.depth("blocks", (1, 2, 3), lambda i: choose(f"block/{i}", {"a": nn.Identity, "b": nn.Tanh}))


def test_show_when_a_decision_exists_unless_it_always_does(nas: Nas) -> None:
    rows = {line.split()[0]: line for line in nas("show", "toy-depth").out.splitlines() if line.startswith("block/")}
    assert rows["block/0"].rstrip().endswith("a, b")
    assert rows["block/1"].rstrip().endswith("blocks=2 or blocks=3")
    assert rows["block/2"].rstrip().endswith("blocks=3")


@pytest.mark.parametrize("name", ["tmics-light", "tmics-heavy"])
def test_show_a_shipped_genotype(name: str, nas: Nas) -> None:
    result = nas("show", name)
    assert result.code == 0
    genotype = Genotype.load(name)
    for label, choice in genotype.choices.items():
        assert re.search(rf"^{label} +operation +{choice} ", result.out, re.M)
    assert result.out.endswith(f"parameters: {parameters(genotype):,}\n")


def test_parameters_that_only_training_uses_are_told_apart(nas: Nas, tmp_path: Path) -> None:
    published = Genotype.load("darts-v2")
    path = tmp_path / "trained.yaml"
    msgspec.structs.replace(published, options={**published.options, "auxiliary": True}).save(path)
    whole = "3,349,342 (3,825,768 with what only training uses)"
    assert nas("show", path).out.endswith(f"parameters: {whole}\n")
    supernet = nas("show", "darts", "auxiliary=true").out
    assert re.search(
        r"^operation weights of the supernet: [\d,]+ \([\d,]+ with what only training uses\);", supernet, re.M
    )


def test_show_a_file_and_a_run(nas: Nas, genotype: Path, searched: Path) -> None:
    assert re.search(r"^second +operation +linear +linear, tanh *$", nas("show", genotype).out, re.M)
    found = Genotype.load(searched / "genotype.yaml")
    assert nas("show", searched).out.endswith(f"parameters: {parameters(found):,}\n")


def test_show_what_modules_cost(nas: Nas, genotype: Path, refused: Callable[..., str]) -> None:
    out = nas("show", genotype, "--input", "2x2x5x5", "--runs", "2").out
    stem = 2 * (2 * 25) * 4 * 2 * 9
    assert re.search(rf"^stem +{4 * 2 * 9 + 4} +{stem / 1e9:.4g} +[\d.e-]+$", out, re.M)
    assert re.search(r"^averaging +6 ", out, re.M)
    assert re.search(r"^FLOPs: [\d,]+ \(1 multiply-add = 2 FLOPs\)$", out, re.M)
    assert re.search(r"^latency: [\d.]+ ms \(median of 2, CPU, threads: \d+\)$", out, re.M)
    assert "first.conv.0" in nas("show", genotype, "--depth", "3").out
    assert "--input must be a shape such as 1x3x32x32, got '2x'" in refused("show", genotype, "--input", "2x")
    assert "--input needs a genotype, got the search space 'toy'" in refused("show", "toy", "--input", "1x2x5x5")
    assert "1x3x5x5" in nas("show", genotype, "--input", "1x3x5x5").err


def test_show_where_a_genotype_comes_from(nas: Nas, searched: Path) -> None:
    out = nas("show", searched).out
    assert re.search(r"^package: tmics-nas ", out, re.M)
    assert re.search(r"^seed: 0$", out, re.M)
    assert re.search(r"^margins: first 0\.\d+, second 0\.\d+$", out, re.M)
    assert "in the authors' published inference code" in nas("show", "tmics-light").out


def test_a_folder_named_like_a_shipped_genotype(nas: Nas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    GENOTYPE.save(tmp_path / "tmics-light" / "genotype.yaml")
    assert nas("show", "tmics-light").out.startswith("toy: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tiy"], "unknown search space or genotype 'tiy' (did you mean 'toy'?)"),
        (["tmics-ligth"], "'tmics-ligth' (did you mean 'tmics-light'?)"),
        (["nowhere:space"], "unknown search space 'nowhere:space'"),
        (["toy", "chanels=3"], "unknown option of space 'toy' 'chanels' (did you mean 'channels'?)"),
        (["toy", "channels"], "must be name=value, got 'channels'"),
        (["tmics-light", "channels=8"], "tmics-light: a genotype has its own options, got channels=8"),
    ],
)
@pytest.mark.parametrize("command", ["show", "draw"])
def test_what_cannot_be_described(
    command: str, arguments: list[str], message: str, refused: Callable[..., str]
) -> None:
    assert message in refused(command, *arguments)


# nas draw


def test_draw_to_the_terminal(nas: Nas, genotype: Path, searched: Path) -> None:
    assert re.search(r"first: conv\b", nas("draw", genotype).out)
    assert "tanh" in nas("draw", "toy").out
    found = Genotype.load(searched / "genotype.yaml")
    assert f"first: {found.choices['first']}" in nas("draw", searched).out
    light = nas("draw", "tmics-light").out
    assert "cell/1: residual_5x5" in light
    assert light.endswith("\n")
    assert not light.endswith("\n\n")


BEGIN = {".svg": "<svg", ".dot": "digraph", ".mmd": "flowchart", ".graphml": "<graphml", ".json": "{", ".txt": "toy"}


@pytest.mark.parametrize("suffix", BEGIN)
def test_draw_to_a_file(suffix: str, nas: Nas, genotype: Path, searched: Path, tmp_path: Path) -> None:
    begin = BEGIN[suffix]
    for number, target in enumerate((genotype, searched, "toy")):
        path = tmp_path / f"picture-{number}{suffix}"
        assert nas("draw", target, "--out", path) == (0, "", "")
        assert path.read_text().startswith(begin)
        assert "depthwise" in path.read_text() or target != "toy"


def test_draw_cells_and_dark(nas: Nas, refused: Callable[..., str], tmp_path: Path) -> None:
    assert "cell/1" in nas("draw", "tmics-light").out
    assert "cell/1" not in nas("draw", "tmics-light", "--cells", "closed").out
    assert nas("draw", "tmics-light", "--cells", "open").out.count("residual_5x5") == 2
    assert nas("draw", "tmics-light", "--dark", "--out", tmp_path / "a.svg").code == 0
    assert "#16181d" in (tmp_path / "a.svg").read_text()
    assert "svg, got dot" in refused("draw", "tmics-light", "--dark", "--out", tmp_path / "a.dot")
    assert "Invalid value" in refused("draw", "tmics-light", "--cells", "ajar")


def test_draw_where_it_cannot(
    refused: Callable[..., str], genotype: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    message = refused("draw", genotype, "--out", tmp_path / "a.png")
    assert "dot" in message
    assert "raphviz" in message
    assert "unknown suffix of a picture '.jpg'" in refused("draw", genotype, "--out", tmp_path / "a.jpg")
    (tmp_path / "file").touch()
    assert "file/a.svg: cannot be written" in refused("draw", genotype, "--out", tmp_path / "file" / "a.svg")
    assert not list(tmp_path.glob("a.*"))


# Genotypes that are none

BAD: dict[str, tuple[str | bytes, str]] = {
    "garbled": ("schema: 1\nspace: [toy\n", r"bad\.yaml:3: not valid YAML"),
    "binary": (b"\x80\x81", r"bad\.yaml: not a text file"),
    "operation": (
        "schema: 1\nspace: toy\nchoices: {first: cov, second: tanh}\n",
        r"bad\.yaml: unknown candidate of 'first' 'cov' \(did you mean 'conv'\?\)",
    ),
    "missing": ("schema: 1\nspace: toy\nchoices: {first: conv}\n", r"bad\.yaml: .*'second'.*, got none"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_genotype_that_cannot_be_used(kind: str, refused: Callable[..., str], tmp_path: Path) -> None:
    text, message = BAD[kind]
    path = tmp_path / "bad.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    for command in (["show", path], ["draw", path], ["retrain", path, "--config", "toy", "--out", tmp_path / "run"]):
        assert re.search(message, refused(*command))
    assert os.listdir(tmp_path) == ["bad.yaml"]


def test_a_folder_without_a_genotype(refused: Callable[..., str], tmp_path: Path) -> None:
    for command in (["show", tmp_path], ["draw", tmp_path], ["retrain", tmp_path, "--out", tmp_path / "run"]):
        assert "no genotype.yaml in this folder; `nas derive`" in refused(*command)


def test_version(nas: Nas) -> None:
    assert nas("--version").out == f"{importlib.metadata.version('tmics-nas')}\n"


# nas latency


def test_latency_prints_a_section_that_a_search_takes(nas: Nas, tmp_path: Path) -> None:
    result = nas("latency", toy.CONFIG, "options.channels=2", "--repeats", 2)
    assert result.code == 0
    section = parse_yaml(result.out, "printed")
    assert isinstance(section, dict)
    assert {label: sorted(row) for label, row in section["latency"].items()} == {
        "first": ["conv", "depthwise", "scale"],
        "second": ["linear", "tanh"],
    }
    assert all(value > 0 for row in section["latency"].values() for value in row.values())
    config = toy.config(f"search.latency={json.dumps(section['latency'])}")
    assert config.search.latency == section["latency"]
    file = tmp_path / "latency.yaml"
    file.write_text(result.out)
    assert toy.config(f"search.latency={file}").search.latency == section["latency"]


def test_latency_takes_at_least_one_pass(refused: Callable[..., str]) -> None:
    assert "--repeats must be at least 1, got 0" in refused("latency", toy.CONFIG, "--repeats", 0)
