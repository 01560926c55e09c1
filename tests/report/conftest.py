"""Runs for every report of them: a search of a space that is not known, and a search and a retraining in TMICS."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nas.derive.margins import margins_of
from nas.derive.strongest import choose_strongest
from nas.genotype.file import Genotype, Provenance
from nas.run.collapse import COLLAPSE
from nas.run.config import load_config
from nas.run.folder import ORIGIN, Run
from nas.run.observer import OBSERVER
from nas.run.scoring import Exhibit, Item, Picture, Scoring
from nas.run.task import Preview
from nas.run.validation import VALIDATION
from nas.space.definition import find_space

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
                    choices = choose_strongest(description.decisions, weights)
                    leads = margins_of(description.decisions, weights, choices)
                    provenance = Provenance(
                        package="tmics-nas 0", seed=seed, config="c0ffee", margins=leads, undecided=(min(leads),)
                    )
                    genotype = Genotype(
                        space=config.space, choices=choices, options=description.options, provenance=provenance
                    )
                    run.save_genotype(genotype, step)
                    score = {"psnr": 30 - abs(step - 40) / 10, "best_epoch": min(step, 40)}
                    run.record(OBSERVER, step, observer=VALIDATION, **score)
                    sign = {"skips/cell": step / 80, "gradient": 1 / step, "eigenvalue": step / 10}
                    spread = {
                        "entropy": 1 - step / 100,
                        "margin": step / 120,
                        "least_margin": step / 600,
                        "undecided": 0.5,
                    }
                    run.record(OBSERVER, step, observer=COLLAPSE, **spread, **sign)
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
            if step % 10 == 0:
                run.record(OBSERVER, step, observer=VALIDATION, psnr=35 - abs(step - 20), best_epoch=min(step, 20))
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


@pytest.fixture(scope="session")
def scoring() -> Scoring:
    """Two methods on two clips with hostile names, of three frames each; the last frame is the worst."""
    methods, clips = ("<b>rainy", "ours"), ("a <script>alert(1)</script>", "=cmd")
    frames = [(clip, frame, method) for frame in (3, 2, 1) for clip in clips for method in methods]
    scores = {method: {"psnr": 20.0 + 10 * place, "share": 0.25} for place, method in enumerate(methods)}
    grey = torch.full((3, 40, 60), 128, dtype=torch.uint8)
    shown = [Picture(name, grey) for name in (*methods, "truth")]
    return Scoring(
        totals={method: {**each, "ssim": math.nan} for method, each in scores.items()},
        judged="ours",
        parts=dict.fromkeys(clips, scores),
        items=[Item(c, f, m, {"psnr": scores[m]["psnr"] + (f == 3) * 1.0}) for c, f, m in frames],
        metrics={"psnr": "in dB", "ssim": "structure", "share": "of <i>", "absent": "of nobody"},
        statement="protocol <1>\nsecond line",
        skipped=["clip <x>: frame 4"],
        part="clip",
        item="frame",
        worst=[Exhibit(f"{clips[0]}, frame 3", [shown, [Picture(f"error of {m}", grey) for m in methods]])],
        exhibits={"Temporal <profiles>": [Exhibit("column", [shown])]},
        legend="Orange & blue",
    )
