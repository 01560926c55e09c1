"""The recipes of papers: each setting against what the authors' code states, and each runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import nas
from nas.run.config import load_config
from nas.run.config_files import find_config, shipped_configs
from nas.run.folder import read_records

RECIPES = sorted(name for name, path in shipped_configs().items() if path.parent.name == "recipes")
LARGE = (
    "darts-v1 darts-v2 gdas snas reinmax pc-darts drnas fair-darts darts-minus sdarts-rs sdarts-adv p-darts"
    " robust-darts darts-pt beta-darts gaea oles proxyless spos"
)
SMALL = {
    "task": {"name": "classification", "data": {"kind": "digits"}, "batch": 2},
    "options.in_channels": 1,
    "options.channels": 4,
    "search.steps": 3,
    "search.epochs": 1,
    "search.validation_batches": 1,
}
"""Digits of 8x8 pixels: three steps."""


@pytest.fixture(scope="module")
def tool(load_tool: Callable[[str], ModuleType]) -> Any:
    return load_tool("recipes")


def test_the_page_is_current(tool: Any) -> None:
    page = tool.PAGE.read_text(encoding="utf-8")
    assert tool.updated(page) == page, "run tools/recipes.py"
    assert all(f"| `{name}` |" in page for name in RECIPES)
    assert set(RECIPES) == set(LARGE.split()) == set(tool.read_sources())


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_states_what_its_paper_does_or_says_that_it_differs(tool: Any, name: str) -> None:
    sources = tool.read_sources()[name]
    found, deviations = tool.compared(load_config(name), sources), sources.get("deviations", {})
    assert sum(found.values()) > 4 or name in ("reinmax", "spos"), "their code is not public"
    assert {field for field, equal in found.items() if not equal} == {*deviations} & {*found}, "all and no other"
    assert {*deviations} <= {*sources}


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("lr", {"search.levels.lower.optimizer.lr": 0.02}),
        ("lr_min", {"search.levels.lower.schedule.final_lr": 0.1}),
        ("batch", {"task.batch": 65}),
        ("epochs", {"search.steps": 19000}),
        ("momentum", {"search.levels.lower.optimizer.momentum": 0.8}),
        ("arch_betas", {"search.levels.upper.optimizer.betas": [0.5, 0.99]}),
        ("arch_weight_decay", {"search.levels.upper.optimizer.weight_decay": 1e-4}),
        ("unrolled", {"search.levels.upper.hypergradient": {"lower": "unrolled"}}),
        ("init_channels", {"options.channels": 17}),
        ("train_portion", {"task.val": 0.4}),
        ("grad_clip", {"search.levels.lower.clip": 4}),
        ("arch_grad_clip", {"search.levels.upper.clip": None}),
        ("derivation", {"search.derivation": "random"}),
        ("affine", {"options.affine": True}),
    ],
)
def test_the_comparison_notices_another_setting(tool: Any, field: str, change: dict[str, Any]) -> None:
    sources = tool.read_sources()["darts-v1"]
    assert tool.compared(load_config("darts-v1"), sources)[field]
    assert not tool.compared(load_config("darts-v1", change), sources)[field]


@pytest.mark.filterwarnings("ignore:derivation 'threshold'")  # after three steps nothing is above it
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_takes_three_steps(name: str, tmp_path: Path) -> None:
    config = load_config(name, small(name))
    found = nas.search(config, out=tmp_path / "run", progress=False)
    records = [record for record in read_records(tmp_path / "run") if record["kind"] == "train"]
    assert {record["level"] for record in records} == set(config.search.levels)
    assert all(math.isfinite(record["loss"]) for record in records)
    assert found.genotype.space == config.space


def small(name: str) -> dict[str, Any]:
    """Overrides by which a recipe runs in seconds: the fewest cells, and every level from the first step on."""
    config = load_config(name)
    channels = {"options.channels": 12} if name == "drnas" else {}  # a multiple of the shares of the partial channels
    cells = {"options.cells": 1} if config.space == "nas-bench-201" else {"options.cells": 3, "options.nodes": 1}
    levels: dict[str, Any] = {f"search.levels.{level}.period": 1 for level in config.search.levels}
    levels |= {f"search.levels.{level}.warmup": 0 for level in config.search.levels}
    for stage in config.search.stages:
        levels |= {f"search.stages.{stage}.epochs": 1, f"search.stages.{stage}.options.cells": 3}
        levels["search.epochs"] = len(config.search.stages)
    if config.search.stopping is not None:
        levels["search.stopping"] = None  # no rule judges so few epochs
    few: dict[str, Any] = {"best_of": {"samples": 2}, "perturbation": {"epochs": 1}}
    policy = config.search.derivation
    if isinstance(policy, dict) and policy["name"] in few:
        levels["search.derivation"] = {**policy, **few[policy["name"]]}
    return {**SMALL, **cells, **levels, **channels}


RATE = {"name": "skip_dropout", "rate": 0.7}
OTHER_STAGES: dict[str, dict[str, tuple[str, object]]] = {
    "p-darts": {
        "epochs_per_stage": ("deep.epochs", 26),
        "layers_per_stage": ("deep.options.cells", 16),
        "kept_per_stage": ("middle.keep", 4),
        "dropped_per_stage": ("shallow.keep", 6),
        "skip_dropout": ("middle.wrappers", [RATE]),
        "skip_dropout_schedule": ("deep.wrappers", [{**RATE, "warmup": 9}]),
        "carried_over": ("deep.continues", True),
    },
    "drnas": {
        "epochs_per_stage": ("four.epochs", 26),
        "partial_channels_per_stage": ("four.wrappers", [{"name": "partial_channels", "k": 6}]),
        "operations_kept_per_stage": ("all.keep", 3),
        "carried_over": ("four.continues", False),
    },
}


@pytest.mark.parametrize("name", OTHER_STAGES)
def test_the_comparison_notices_other_stages(tool: Any, name: str) -> None:
    sources, recipe = tool.read_sources()[name], load_config(name)
    assert recipe.search.levels["upper"].warmup * 25 == sources["arch_start_epoch_of_each_stage"][0] == 10
    for field, (key, value) in OTHER_STAGES[name].items():
        stated = {field: sources[field]}
        assert tool.compared(recipe, stated) == {field: True}
        assert tool.compared(load_config(name, {f"search.stages.{key}": value}), stated) == {field: False}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_short(name: str) -> None:
    lines = find_config(name).read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 30
    assert lines[0].startswith("# ")
    assert lines[1].startswith("base: ")


FAMILIES = {
    "darts-v2": "responses of lower levels",
    "gdas": "sampled paths",
    "snas": "samples of all candidates",
    "proxyless": "two paths, and a cost",
    "fair-darts": "separate weights, and a threshold",
    "spos": "paths without logits",
    "p-darts": "stages that start from scratch",
    "drnas": "stages that continue, and partial channels",
    "gaea": "weighed in-edges, and another optimizer",
    "sdarts-adv": "perturbed weights",
    "darts-minus": "a further term",
    "robust-darts": "a stopping rule",
    "darts-pt": "a derivation that trains",
    "oles": "operations that freeze",
}
"""One recipe of each family of methods."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:derivation 'threshold'")
@pytest.mark.parametrize("name", FAMILIES)
def test_a_recipe_of_each_family_finds_a_network_that_learns(name: str, tmp_path: Path) -> None:
    """From the search through the genotype to the test accuracy, on digits; a guess is right in a tenth of them."""
    config = load_config(name)
    epochs = len(config.search.stages) or (17 if config.search.stopping else 2)
    changes = {
        "task.batch": 32,
        "search.steps": 34,
        "search.epochs": epochs,
        "retrain.options": {"channels": 8, "affine": True},
        "retrain.task": {"batch": 32},
        "retrain.epochs": 1,
        "retrain.stages.all.steps": 150,
    }
    stopping = {"search.stopping": config.search.stopping} if config.search.stopping else {}
    if name == "fair-darts":  # so few steps take no weight to .85, and an edge below the threshold is none
        changes["search.derivation"] = {"name": "threshold", "threshold": 0.4}
    found = nas.search(load_config(name, {**small(name), **stopping, **changes}), out=tmp_path / "run", progress=False)
    result = nas.retrain(found, out=tmp_path / "network", progress=False)
    assert result.scores["accuracy"] > 0.5
