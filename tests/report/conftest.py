"""Runs for every report of them: a search of a space that is not known, and a search and a retraining in TMICS."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nas.config import load_config
from nas.derive import choose_strongest
from nas.genotype import Genotype, Provenance
from nas.observe import INDICATORS, VALIDATION
from nas.run import ORIGIN, Run
from nas.space import find_space
from nas.task import Preview

CANDIDATES = {"alignment": ["ofm", "tgm"], "dna/0": ["res3", "dense5", "none"], "cell/2<-0": [4, 8]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a run of 40 steps on three decisions, two levels, and an evaluation every tenth step."""
    with Run.create(tmp_path / "first search", "seed: 3\n", seed=3) as run:
        run.record("decisions", decisions=CANDIDATES)
        for step in range(1, 41):
            run.record("train", step=step, level="lower", loss=1.0 / step, norm=float("nan") if step == 7 else 2.0)
            run.record("train", step=step, level="upper", loss=0.5 + 0.001 * step)
            if step % 10 == 0:
                lead = 0.5 + step / 100
                weights = {"alignment": [lead, 1 - lead], "dna/0": [0.25, 0.3, 0.45], "cell/2<-0": [0.4, 0.6]}
                run.record("mixing", step=step, weights=weights)
                run.record("evaluate", step=step, psnr_y=30.0 + step / 10, protocol="light25 | Y")
                early = Genotype(space="tmics", choices={"alignment": "tgm"})
                run.save_genotype(early, step)
        margins = {"alignment": 0.8, "dna/0": 0.05, "cell/2": 1.0}
        run.save_genotype(
            Genotype(
                space="tmics",
                choices={"alignment": "ofm", "dna/0": "dense5", "cell/2": (0, 1)},
                options={"channels": 8, "cells": 2},
                provenance=Provenance(margins=margins),
            )
        )
    return run.path


SMALL = ["options.channels=4", "search.steps=60", "search.epochs=6"]


@pytest.fixture(scope="session")
def make_search(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes what a search in TMICS, or by another configuration, leaves: 60 steps, 6 epochs, no training; to be left
    as it is."""

    def make(
        name: str = "search", *overrides: str, seed: int = 0, finished: bool = True, config_name: str = "demo"
    ) -> Path:
        config = load_config(config_name, [*SMALL, f"seed={seed}", *overrides])
        description = find_space(config.space).describe(**config.options)
        generator = torch.Generator().manual_seed(seed)
        drift = {
            label: torch.randn(len(d.candidates), generator=generator)
            for label, d in description.decisions.items()
            if d.kind != "inputs"
        }
        folder = tmp_path_factory.mktemp("runs") / name
        with Run.create(folder, config.dump(), seed) as run:
            run.record("decisions", 0, decisions={label: description.decisions[label].candidates for label in drift})
            for step in range(61):
                if step:
                    run.record("train", step, level="lower", loss=1 / step + 0.01 * seed, gradient=2.0)
                if step and step % 2 == 0:
                    run.record("train", step, level="upper", loss=0.5 + 0.1 * math.sin(step + seed), gradient=0.1)
                if step % 10:
                    continue
                weights = {label: (value * step / 40).softmax(0) for label, value in drift.items()}
                run.record("mixing", step, weights={label: value.tolist() for label, value in weights.items()})
                if step:
                    choices, margins = choose_strongest(description.decisions, weights)
                    provenance = Provenance(
                        package="tmics-nas 0", seed=seed, config="c0ffee", margins=margins, undecided=(min(margins),)
                    )
                    genotype = Genotype(
                        space=config.space, choices=choices, options=description.options, provenance=provenance
                    )
                    run.save_genotype(genotype, step)
                    run.record(VALIDATION, step, psnr=30 - abs(step - 40) / 10)
                    sign = {"skips/cell": step / 80, "gradient": 1 / step, "eigenvalue": step / 10}
                    spread = {
                        "entropy": 1 - step / 100,
                        "margin": step / 120,
                        "least_margin": step / 600,
                        "undecided": 0.5,
                    }
                    run.record(INDICATORS, step, **spread, **sign)
            if finished:
                run.save_genotype(genotype)
        return folder

    return make


@pytest.fixture(scope="session")
def searched(make_search: Callable[..., Path]) -> Path:
    """The folder of a finished search in TMICS; to be left as it is."""
    return make_search()


@pytest.fixture(scope="session")
def retrained(searched: Path) -> Path:
    """The folder of a retraining of what `searched` found; to be left as it is."""
    with Run.create(searched.parent / "network", (searched / "config.yaml").read_text(), 0) as run:
        for step in range(1, 31):
            run.record("train", step, level="backbone" if step <= 20 else "joint", loss=1 / step, gradient=1.0)
        run.record("evaluate", None, psnr=36.25, ssim=0.975, statement="PSNR on Y")
        run.record(ORIGIN, None, search="../search")
        run.save_genotype(Genotype.load(searched / "genotype.yaml"))
    return run.path


@pytest.fixture(scope="session")
def preview() -> Preview:
    """Four frames, 40 x 64, of a square that moves; red before, green after, blue in truth."""
    frames = torch.zeros(3, 4, 3, 40, 64, dtype=torch.uint8)
    for layer in range(3):
        for i in range(4):
            frames[layer, i, layer, 10:30, 12 * i : 12 * i + 20] = 255
    return Preview("a <square>", dict(zip(("rainy", "derained", "truth"), frames, strict=True)))
