"""Choose, train and pack the network that ships as `tmics-compact`. Each part can be stopped and run again.

    python tools/shipped_network.py choose --data CLIPS
    python tools/shipped_network.py train GENOTYPE --data CLIPS
    nas models pack runs/shipped/network tmics_space/models/tmics-compact --card CARD.md

`choose` trains every network by the same configuration from the same seeds and scores it on the validation films: they
are other films, with rain of another kind. Test scores do not enter the table. A finished training is one line of the
results file, and is not done again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

import nas
from nas.cost.network_cost import measure
from nas.derive.random import choose_randomly
from nas.errors import NASError
from nas.genotype.file import Genotype
from nas.kernels.activation import PReLU
from nas.registry import Count
from nas.report.live import RunProgress
from nas.report.progress import watched
from nas.run.config import Config, load_config
from nas.run.folder import CONFIG, GENOTYPE, read_records
from nas.run.held_out import begun
from nas.run.models import model_folder
from nas.run.observer import observed
from nas.run.retraining import retrain
from nas.run.task import Task
from nas.space.chooser import Chooser
from nas.space.definition import find_space, search_space
from result_rows import ResultRows, Row
from tmics_space.alignment import Aligned, OpticalFlow
from tmics_space.blocks import conv, he, head
from tmics_space.flow import FLOW_PROVIDERS
from tmics_space.network import Deraining, Route

SHIPPED = "tmics-compact"
SCORE = "psnr"
RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results" / "compact-choice.jsonl"
RANDOM = 4
NEAR = 0.15
"""How far the FLOPs of a random genotype may be from the mean of the searched ones, relative to it."""
WIDTHS = range(16, 129, 2)
"""Widths of the plain networks, of which the one with the nearest FLOPs is taken."""


class Stacked(nn.Module):
    """An alignment that does nothing: the frames of the window as channels, at half size."""

    def forward(self, frames: Tensor) -> Aligned:
        return Aligned(nn.functional.pixel_unshuffle(frames.flatten(1, 2), 2), frames.new_zeros(()))


@search_space("plain-cnn")
def plain_cnn(
    choose: Chooser, /, *, width: Count = 32, depth: Count = 6, frames: Count = 5, flow: dict[str, Any] | None = None
) -> nn.Module:
    """A row of convolutions at half size, on frames that are stacked, or warped by the flow first. No decision."""
    alignment: nn.Module = Stacked()
    if flow is not None:
        alignment = OpticalFlow(1, FLOW_PROVIDERS.create(flow, "options.flow"), frames=frames, scale=2)
        alignment.merge = nn.Sequential()  # nothing
    widths = [3 * 4 * frames, *[width] * depth]
    layers = [nn.Sequential(he(conv(i, o, bias=True)), PReLU()) for i, o in itertools.pairwise(widths)]
    return Deraining(
        alignment=alignment,
        frequency=nn.Identity(),
        streaks=None,
        stem=None,
        dna=Route(nn.Sequential(*layers), head(width, scale=2)),
        cna=None,
        averaging=None,
        frames=frames,
        scale=2,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("choose", "train", "table"))
    parser.add_argument("genotype", nargs="?", help="what `train` trains")
    parser.add_argument("--data", default=None, help="the folder of the films (task.train.root and the like)")
    parser.add_argument("--out", type=Path, default=Path("runs/shipped"), help="where runs go")
    parser.add_argument("--results", type=Path, default=RESULTS, help="one line per finished training of `choose`")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each network")
    parser.add_argument("--searches", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2000, help="of each training of `choose`")
    parser.add_argument("--config", default="compact", help="the configuration")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="changes of the configuration")
    arguments = parser.parse_args()
    try:
        if arguments.part == "choose":
            choose(arguments)
        if arguments.part == "train":
            train(arguments)
        else:
            print(*table(results(arguments, alike=lambda _: True).done.values()), sep="\n")
    except NASError as error:
        sys.exit(f"error: {error}")


def choose(arguments: argparse.Namespace) -> None:
    """Train every network with every seed, seed by seed, so that a table of some seeds is a fair one."""
    rows, tasks = results(arguments), dict[int, Task]()
    networks = dict(candidates(arguments, rows))
    for seed, (name, genotype) in itertools.product(range(arguments.seeds), networks.items()):
        if (name, seed) in rows.done:
            continue
        started = time.process_time()
        folder = arguments.out / f"{name.replace(' ', '-')}-seed-{seed}"
        config = configured(arguments, genotype, seed)
        if seed not in tasks:  # reads the films, once for all networks
            tasks[seed] = config.build_task(retraining=True)
        shown = [RunProgress(quiet=not watched(None))]
        with begun(folder, config, lambda: False) as run:
            retrain(config, genotype, run, shown, task=tasks[seed], scored="validation")
        last = observed(read_records(folder), "validation")[-1]
        row = described(name, genotype) | {"seed": seed, "steps": config.retrain.steps, "psnr": last[SCORE]}
        rows.add(row | {"seconds": round(time.process_time() - started)})


def candidates(arguments: argparse.Namespace, rows: ResultRows) -> Iterator[tuple[str, Genotype]]:
    """Name the networks to compare: searched, the shipped one, random of equal cost, plain of equal cost."""
    config = configured(arguments)
    searched = []
    for seed in range(arguments.searches):
        name = f"searched {seed}"
        found = rows.done.get((name, None))
        if found is None:
            folder, started = arguments.out / f"search-{seed}", time.process_time()
            result = nas.search(configured(arguments, seed=seed), out=folder, resume=(folder / CONFIG).is_file())
            found = described(name, result.genotype) | {"seed": None, "seconds": round(time.process_time() - started)}
            rows.add(found)
        searched.append(Genotype(space=found["space"], options=found["options"], choices=found["choices"]))
        yield name, searched[-1]
    shipped = msgspec.structs.replace(Genotype.load(model_folder(SHIPPED) / GENOTYPE), provenance=None)
    if shipped not in searched:
        yield "shipped", shipped
    target = statistics.fmean(flops(each) for each in searched)
    description = find_space(config.space).describe(**config.options)
    generator = torch.Generator().manual_seed(0)
    drawn: list[Genotype] = []
    while len(drawn) < RANDOM:
        choices = choose_randomly(description.decisions, generator)
        genotype = Genotype(space=config.space, choices=choices, options=description.options)
        if genotype not in [*searched, *drawn] and abs(flops(genotype) / target - 1) < NEAR:
            drawn.append(genotype)
            yield f"random {len(drawn)}", genotype
    for name, flow in (("plain CNN", None), ("plain CNN behind the flow", config.options["flow"])):
        options = [find_space("plain-cnn").describe(width=width, flow=flow).options for width in WIDTHS]
        yield (
            name,
            min(
                (Genotype(space="plain-cnn", choices={}, options=each) for each in options),
                key=lambda plain: abs(flops(plain) - target),
            ),
        )


def train(arguments: argparse.Namespace) -> None:
    """Train a genotype for all the steps of the configuration."""
    if arguments.genotype is None:
        sys.exit("error: 'train' needs a genotype: a file, or the folder of a search")
    folder = arguments.out / "network"
    nas.retrain(arguments.genotype, configured(arguments, full=True), out=folder, resume=(folder / CONFIG).is_file())


def configured(
    arguments: argparse.Namespace, genotype: Genotype | None = None, seed: int = 0, *, full: bool = False
) -> Config:
    """The configuration of the shipped network, for one training of `choose` unless `full`."""
    settings: dict[str, Any] = {"seed": seed}
    if arguments.data is not None:
        settings |= {f"task.{part}.root": arguments.data for part in ("train", "validation", "test")}
    if not full:
        settings |= {"retrain.stages.all.steps": arguments.steps, "retrain.validation.every": arguments.steps}
    if genotype is not None and genotype.space == "plain-cnn":  # its flow is the same one, and fixed, too
        weights = load_config(arguments.config, arguments.set).initial.get("alignment.ofm.flow")
        settings["initial"] = json.dumps({"alignment.flow": weights} if weights and genotype.options["flow"] else {})
        settings["retrain.stages.all.level.parameters"] = json.dumps(["*", "!alignment.flow.*"])
    config = load_config(arguments.config, [*(f"{key}={value}" for key, value in settings.items()), *arguments.set])
    if genotype is None:
        return config
    return msgspec.structs.replace(config, space=genotype.space, options=dict(genotype.options))


def described(name: str, genotype: Genotype) -> dict[str, Any]:
    """What a row says of a network."""
    return {
        "network": name,
        "space": genotype.space,
        "options": genotype.options,
        "choices": genotype.choices,
        "parameters": int(measure(genotype)),
        "mflops": round(flops(genotype) / 1e6, 1),
    }


def flops(genotype: Genotype) -> float:
    """The FLOPs of one window of 64 by 64 pixels."""
    return measure(genotype, "flops", (torch.zeros(1, 5, 3, 64, 64),))


def results(arguments: argparse.Namespace, alike: Callable[[str], bool] | None = None) -> ResultRows:
    """The rows so far. They belong to one configuration, wherever its films are, and to one number of searches, whose
    mean cost chooses the other networks. `alike` is that of `ResultRows`."""
    config = configured(argparse.Namespace(**{**vars(arguments), "data": None}))
    settings = f"{config.dump()}searches: {arguments.searches}\n"
    return ResultRows(arguments.results, ("network", "seed"), settings, alike)


def table(rows: Collection[Row]) -> Iterator[str]:
    """Yield the lines of the table: mean and standard deviation over seeds of each network."""
    yield "| network | choices | parameters | MFLOPs of a 64x64 window | seeds | validation PSNR_Y, dB |"
    yield "|---|---|---|---|---|---|"
    scores: dict[str, list[float]] = {}
    for row in (row for row in rows if row["seed"] is not None):
        scores.setdefault(row["network"], []).append(row["psnr"])
    known = {row["network"]: row for row in rows}
    for name, values in scores.items():
        row = known[name]
        choices = ", ".join(str(choice) for choice in row["choices"].values())
        spread = f" +- {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        yield (
            f"| {name} | {choices} | {row['parameters']:,} | {row['mflops']:,.0f} | {len(values)}"
            f" | {statistics.fmean(values):.2f}{spread} |"
        )


if __name__ == "__main__":
    main()
