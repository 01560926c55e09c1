"""Thirteen searches of several parts each, killed at random and resumed: they end as if nothing had happened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import processes
from nas.run.config import Config, load_config
from runs import assert_equal_runs, run_search

pytestmark = pytest.mark.slow

PARTIAL = {"name": "partial_channels", "k": 2}
DROPOUT = {"name": "skip_dropout", "rate": 0.3, "epochs": 3, "warmup": 1}
STAGES = {"all": {"epochs": 1, "keep": 3}, "few": {"epochs": 2}}
LEVEL, SEARCH = "search.levels.upper", "search"
COMPOSITIONS: dict[str, dict[str, Any]] = {
    "FairDARTS": {
        f"{SEARCH}.relaxation": "sigmoid",
        f"{SEARCH}.derivation": "threshold",
        f"{LEVEL}.regularizers": [{"name": "zero_one", "weight": 1.0}],
    },
    "DrNAS": {
        f"{SEARCH}.relaxation": {"name": "dirichlet", "read": "softmax"},
        f"{SEARCH}.stages": {
            "all": {"epochs": 1, "keep": 3, "wrappers": [{"name": "partial_channels", "k": 4}]},
            "few": {"epochs": 2, "continues": True, "wrappers": [PARTIAL]},
        },
        f"{LEVEL}.regularizers": [{"name": "dirichlet_kl", "weight": 0.1}],
    },
    "P-DARTS": {
        f"{SEARCH}.stages": {
            "shallow": {"epochs": 1, "keep": 4, "wrappers": [DROPOUT]},
            "deep": {"epochs": 2, "options": {"cells": 4}, "wrappers": [{**DROPOUT, "rate": 0.6}]},
        },
        f"{SEARCH}.at_most": {"normal/skip_connect": 1},
    },
    "PC-DARTS and GAEA": {
        f"{SEARCH}.wrappers": [PARTIAL, "edge_normalization"],
        f"{LEVEL}.optimizer": {"name": "exponentiated_gradient", "lr": 0.1},
    },
    "SDARTS on PC-DARTS": {
        f"{SEARCH}.wrappers": [
            {"name": "perturbation", "attack": "adversarial", "steps": 2},
            PARTIAL,
            "edge_normalization",
        ],
    },
    "SDARTS and DARTS-PT": {
        f"{SEARCH}.wrappers": ["perturbation"],
        f"{SEARCH}.derivation": {"name": "perturbation", "epochs": 1},
        f"{SEARCH}.validation_batches": 1,
    },
    "DARTS- and beta-DARTS": {
        f"{SEARCH}.wrappers": ["auxiliary_skip"],
        f"{LEVEL}.regularizers": [{"name": "beta_decay", "weight": 0.5, "ramp": True}],
    },
    "OLES and GAEA": {
        "search.levels.lower.freezing": {"name": "oles", "window": 2, "threshold": 0.9},
        f"{LEVEL}.optimizer": {"name": "exponentiated_gradient", "lr": 0.1},
    },
    "second order and skip dropout": {
        f"{SEARCH}.wrappers": [DROPOUT],
        f"{LEVEL}.hypergradient": {"lower": "unrolled"},
    },
    "GDAS and expected cost": {
        f"{SEARCH}.relaxation": "gumbel",
        f"{SEARCH}.memory": "checkpoint",
        f"{LEVEL}.regularizers": [{"name": "expected_cost", "weight": 0.1}],
    },
    "SNAS, entropy and stages": {
        f"{SEARCH}.relaxation": "gumbel_soft",
        f"{SEARCH}.wrappers": ["auxiliary_skip"],
        f"{SEARCH}.stages": STAGES,
        f"{LEVEL}.regularizers": [{"name": "entropy", "weight": 0.1, "ramp": True}],
    },
    "ProxylessNAS and expected FLOPs": {
        f"{SEARCH}.relaxation": "binary_gates",
        f"{LEVEL}.regularizers": [{"name": "expected_flops", "weight": 0.1}],
    },
    "RobustDARTS and ReinMax": {
        f"{SEARCH}.relaxation": "reinmax",
        f"{SEARCH}.wrappers": [DROPOUT],
        f"{SEARCH}.hessian_products": 3,
        f"{SEARCH}.epochs": 6,
        f"{SEARCH}.stopping": {"name": "robust_darts", "window": 1, "delta": 1, "start": 1},
    },
}


def composed(name: str) -> Config:
    small = {
        "task": {"name": "classification", "data": {"kind": "digits"}, "batch": 2},
        "options": {"in_channels": 1, "channels": 8, "cells": 3, "nodes": 1},
        "search.steps": 18,
        "search.epochs": 3,
        "search.validation_batches": 0,
        f"{LEVEL}.warmup": 0.2,
    }
    return load_config("darts-v1", {**small, **COMPOSITIONS[name]})


@pytest.mark.filterwarnings("ignore:derivation 'threshold'")
@pytest.mark.parametrize("name", COMPOSITIONS)
def test_a_killed_search_of_several_parts_resumes_exactly(name: str, tmp_path: Path) -> None:
    config = composed(name)
    run_search(tmp_path / "whole", config)
    (tmp_path / "config.yaml").write_text(config.dump())
    size = (tmp_path / "whole" / "metrics.jsonl").stat().st_size
    shares = [0.2, 0.45, 0.8]
    command = ["search", str(tmp_path / "config.yaml")]
    assert processes.run_with_kills(command, tmp_path / "run", size, shares, len(name)) == 0
    (tmp_path / "run" / "report.html").unlink()  # the command writes this as well
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")
